package web_test

import (
	"context"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"

	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
)

// hang has the writer of the ledger wait for Postgres, with a heartbeat, so that what
// is admitted from now on waits behind it.
func (s *stand) hang() (release func()) {
	s.t.Helper()
	release = s.blockLedger()
	for s.waiting("pid") == 0 {
		runtime.Gosched()
	}
	return release
}

// fall makes Postgres go away while the writer hangs.
func (s *stand) fall(release func()) {
	s.t.Helper()
	s.cable.Cut.Store(true)
	s.waiting("pg_terminate_backend(pid)")
	release()
}

// waiting counts what is asked of the sessions that wait for a lock.
func (s *stand) waiting(what string) (n int) {
	s.t.Helper()
	err := s.db.QueryRow(s.t.Context(), `
		select count(`+what+`) from pg_stat_activity
		where datname = current_database() and wait_event_type = 'Lock'`).Scan(&n)
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

// TestAnAnswerWhoseAdmissionFailsIsBookedAndNotPassedOn loses Postgres while the
// upstream answers a request that went there beside its admission.
func TestAnAnswerWhoseAdmissionFailsIsBookedAndNotPassedOn(t *testing.T) {
	t.Parallel()
	s := newStand(t, nil)
	release := s.hang()
	arrived := make(chan *http.Response, 1)
	go func() { arrived <- s.post(body(true, "")) }()
	for len(s.sim.Requests()) == 0 {
		runtime.Gosched()
	}
	s.fall(release)
	resp := <-arrived
	if text := read(t, resp); resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(text, "overloaded_error") {
		t.Errorf("%d: %s", resp.StatusCode, text)
	}
	s.cable.Cut.Store(false)
	if row := s.row(); row.Status != ledger.Stopped || row.Usage.InputTokens == 0 || row.Cost == 0 {
		t.Errorf("row %+v", row)
	}
}

// TestAnAnswerThatBreaksOffBesideAFailedAdmissionCostsNothing has the upstream end
// the connection after the header of its answer.
func TestAnAnswerThatBreaksOffBesideAFailedAdmissionCostsNothing(t *testing.T) {
	t.Parallel()
	asked := make(chan struct{})
	s := newStandBefore(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush() // the end follows
		close(asked)
		panic(http.ErrAbortHandler)
	}), nil)
	release := s.hang()
	arrived := make(chan *http.Response, 1)
	go func() { arrived <- s.post(body(true, "")) }()
	<-asked
	s.fall(release)
	if resp := <-arrived; resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("%d", resp.StatusCode)
	}
	s.cable.Cut.Store(false)
	if row := s.row(); row.Status != ledger.Stopped || row.Cost != 0 || row.HTTPStatus != http.StatusOK {
		t.Errorf("row %+v", row)
	}
}

// TestAClientThatLeavesBeforeItsAdmissionFailsIsOnTheLedger has the client go before
// anything of an answer came, and Postgres before the admission was decided: what
// the upstream was asked for is on the ledger all the same.
func TestAClientThatLeavesBeforeItsAdmissionFailsIsOnTheLedger(t *testing.T) {
	t.Parallel()
	asked, done := make(chan struct{}, 1), make(chan struct{})
	s := newStandBefore(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body) //nolint:errcheck // only then a server notices that its client has gone
		asked <- struct{}{}
		<-r.Context().Done()
		close(done)
	}), nil)
	release := s.hang()
	ctx, leave := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.proxy.URL+"/v1/messages", strings.NewReader(body(true, "")))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Api-Key", virtualKey)
	go func() {
		<-asked
		leave()
	}()
	if resp, err := http.DefaultClient.Do(req); err == nil {
		resp.Body.Close() // the test fails
		t.Errorf("it was answered: %d", resp.StatusCode)
	}
	<-done
	s.fall(release)
	s.cable.Cut.Store(false)
	if row := s.row(); row.Status != ledger.Aborted || row.Cost != 0 {
		t.Errorf("row %+v", row)
	}
}
