package rpc_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/testing/protocmp"

	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
)

// watcher is an open WatchKeys stream.
type watcher struct {
	grpc.ServerStreamingClient[keysv1.WatchKeysResponse]
}

// watch opens a stream and checks its first message.
func (s server) watch(t *testing.T, after, wantStart int64) watcher {
	t.Helper()
	stream, err := s.keys.WatchKeys(t.Context(), &keysv1.WatchKeysRequest{AfterRevision: after})
	if err != nil {
		t.Fatal(err)
	}
	first, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	want := &keysv1.WatchKeysResponse{Revision: wantStart, Heartbeat: true}
	if diff := cmp.Diff(want, first, protocmp.Transform()); diff != "" {
		t.Errorf("first message (-want +got):\n%s", diff)
	}
	return watcher{stream}
}

// event returns the next message that is no heartbeat.
func (w watcher) event(t *testing.T) *keysv1.WatchKeysResponse {
	t.Helper()
	for {
		m, err := w.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if !m.GetHeartbeat() {
			return m
		}
	}
}

func (w watcher) wantRevoked(t *testing.T, revision int64, keyID string) {
	t.Helper()
	want := &keysv1.WatchKeysResponse{Revision: revision, KeyIds: []string{keyID}, Stopped: true, Reason: "revoked"}
	if diff := cmp.Diff(want, w.event(t), protocmp.Transform()); diff != "" {
		t.Errorf("event (-want +got):\n%s", diff)
	}
}

// The three ways by which an event can come: with the poll out of reach only a
// notification brings it, on the first connection and on the one after that was
// lost; without notifications only the poll does.
func TestARevocationReachesWatchers(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		o    options
		cut  bool
	}{
		{"by notification", options{poll: time.Hour, heartbeat: time.Hour}, false},
		{"by notification after the listener lost its connection", options{poll: time.Hour, heartbeat: time.Hour}, true},
		{"by polling when notifications are lost", options{deaf: true, poll: 50 * time.Millisecond, heartbeat: time.Second}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := start(t, tt.o)
			one, two := s.watch(t, 0, 0), s.watch(t, 0, 0)
			if tt.cut {
				s.cutListener(t)
			}
			for i := range int64(3) {
				issued := s.issue(t, fmt.Sprintf("sess-%d", i))
				resp := s.revoke(t, &keysv1.RevokeKeysRequest{UserId: fmt.Sprintf("sess-%d", i)})
				if resp.GetRevision() != i+1 {
					t.Errorf("revision = %d, want %d", resp.GetRevision(), i+1)
				}
				one.wantRevoked(t, i+1, issued.GetKey().GetKeyId())
				two.wantRevoked(t, i+1, issued.GetKey().GetKeyId())
			}
		})
	}
}

// cutListener ends the connection that listens, once it does.
func (s server) cutListener(t *testing.T) {
	t.Helper()
	for cut := false; !cut; {
		err := s.db.QueryRow(t.Context(), `
			select coalesce(bool_or(pg_terminate_backend(pid)), false)
			from pg_stat_activity
			where datname = current_database() and query like 'listen %' and state = 'idle'`).Scan(&cut)
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestAWatchResumes(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	var ids []string
	for i := range 3 {
		ids = append(ids, s.issue(t, fmt.Sprintf("sess-%d", i)).GetKey().GetKeyId())
		s.revoke(t, &keysv1.RevokeKeysRequest{UserId: fmt.Sprintf("sess-%d", i)})
	}
	w := s.watch(t, 1, 1)
	w.wantRevoked(t, 2, ids[1])
	w.wantRevoked(t, 3, ids[2])
	if m, err := w.Recv(); err != nil || !m.GetHeartbeat() || m.GetRevision() != 3 {
		t.Errorf("got %v, %v, want a heartbeat with revision 3", m, err)
	}
	ahead, err := s.keys.WatchKeys(t.Context(), &keysv1.WatchKeysRequest{AfterRevision: 9})
	if err != nil {
		t.Fatal(err)
	}
	_, err = ahead.Recv()
	wantStatus(t, err, codes.FailedPrecondition, "after_revision 9 is newer than the newest revision 3: forget all keys and watch from 0")
}

func TestTeamsAndRenewedKeysAreAnnounced(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	w := s.watch(t, 0, 0)
	req := &keysv1.IssueSessionKeyRequest{UserId: "sess-1", TeamId: "org-1", IdempotencyKey: "a"}
	first, err := s.keys.IssueSessionKey(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.keys.IssueSessionKey(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	_, err = s.teams.SetTeamStatus(t.Context(), &keysv1.SetTeamStatusRequest{
		TeamId: "org-1", Status: keysv1.TeamStatus_TEAM_STATUS_SUSPENDED,
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []*keysv1.WatchKeysResponse{
		{Revision: 1, KeyIds: []string{first.GetKey().GetKeyId()}},
		{Revision: 2, TeamIds: []string{"org-1"}, Stopped: true, Reason: "suspended"},
	}
	if diff := cmp.Diff(want, []*keysv1.WatchKeysResponse{w.event(t), w.event(t)}, protocmp.Transform()); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestAnOutageIsUnavailableSilencesHeartbeatsAndPasses(t *testing.T) {
	t.Parallel()
	const heartbeat = 40 * time.Millisecond
	s := start(t, options{poll: heartbeat / 2, heartbeat: heartbeat})
	w := s.watch(t, 0, 0)
	heartbeats := make(chan struct{})
	go func() {
		for _, err := w.Recv(); err == nil; _, err = w.Recv() { // the stream ends with the test
			select {
			case heartbeats <- struct{}{}:
			case <-t.Context().Done():
			}
		}
	}()
	token := s.issue(t, "sess-1").GetKey().GetToken()
	verify := func() error {
		_, err := s.keys.VerifyKey(t.Context(), &keysv1.VerifyKeyRequest{Token: token})
		return err
	}
	s.setReachable(t, false)
	wantStatus(t, verify(), codes.Unavailable, "the key store is not reachable; try again")
	for silent := false; !silent; {
		select {
		case <-heartbeats: // one may have been on its way
		case <-time.After(10 * heartbeat):
			silent = true
		}
	}
	s.setReachable(t, true)
	<-heartbeats
	if err := verify(); err != nil {
		t.Errorf("verify after the outage: %v", err)
	}
}

// setReachable makes the database refuse all connections, or take them again.
func (s server) setReachable(t *testing.T, reachable bool) {
	t.Helper()
	cfg := s.db.Config().ConnConfig
	name := cfg.Database
	cfg.Database = "template1"
	conn, err := pgx.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), fmt.Sprintf(`alter database %s allow_connections %t`, pgx.Identifier{name}.Sanitize(), reachable)); err != nil {
		t.Fatal(err)
	}
	if !reachable {
		if _, err := conn.Exec(t.Context(), `select pg_terminate_backend(pid) from pg_stat_activity where datname = $1`, name); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAWatchEndsWhenTheServiceDrains(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	w := s.watch(t, 0, 0)
	if err := s.stop(); err != nil {
		t.Errorf("drain: %v", err)
	}
	var err error
	for err == nil {
		_, err = w.Recv()
	}
	wantStatus(t, err, codes.Unavailable, "the service is shutting down; connect again")
}
