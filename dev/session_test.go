package dev

import (
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
	proxyv1 "github.com/proliferate-ai/llm-proxy/gen/proxysvc/v1"
)

// TestASessionEndsByOneCall ends a session that streams on two replicas: both
// streams end with a typed error, its keys are dead, and the cost that it is told
// is the ledger's.
func TestASessionEndsByOneCall(t *testing.T) {
	t.Parallel()
	s := newSuite(t)
	keysvc := s.start("keysvc")
	replicas := []*process{s.start("proxysvc"), s.start("proxysvc")}
	keys := keysv1.NewKeyServiceClient(keysvc.dial(t))
	resp, err := keys.IssueSessionKey(t.Context(), &keysv1.IssueSessionKeyRequest{UserId: "s-1", TeamId: "acme", Duration: "1h"})
	if err != nil {
		t.Fatal(err)
	}
	var running, begun sync.WaitGroup
	victims := make([]*victim, len(replicas))
	for n, p := range replicas {
		victims[n] = &victim{key: resp.GetSecret(), session: "s-1"}
		begun.Add(1)
		running.Go(func() {
			if err := victims[n].stream(t.Context(), "http://"+p.http, sync.OnceFunc(begun.Done)); err != nil {
				t.Error(err)
			}
		})
	}
	begun.Wait()
	proxy := proxyv1.NewProxyServiceClient(replicas[0].dial(t))
	ended, err := proxy.EndSession(t.Context(), &proxyv1.EndSessionRequest{UserId: "s-1"})
	if err != nil {
		t.Fatal(err)
	}
	running.Wait()
	for _, v := range victims {
		if !strings.Contains(v.end, "authentication_error") {
			t.Errorf("the stream ended with %q", v.end)
		}
	}
	spend := proxyv1.NewSpendServiceClient(replicas[1].dial(t))
	account, err := spend.GetAccount(t.Context(), &proxyv1.GetAccountRequest{Kind: "user", Id: "s-1"})
	if err != nil {
		t.Fatal(err)
	}
	if ended.GetKeys() != 1 || ended.GetRequests() != 2 || ended.GetOpenRequests() != 0 || ended.GetCostNanoUsd() == 0 || ended.GetCostNanoUsd() != account.GetSpentNanoUsd() {
		t.Errorf("ended %v, the ledger says %v", ended, account)
	}
	again, err := proxy.EndSession(t.Context(), &proxyv1.EndSessionRequest{UserId: "s-1"})
	if err != nil || again.GetCostNanoUsd() != ended.GetCostNanoUsd() {
		t.Errorf("again: %v, %v", again, err)
	}
}

// TestASessionsCostIsFinal ends a session that had other keys before, one replaced
// and one whose life is over, while a replica that nobody tells of it still takes
// its requests: the cost is that of all of them.
func TestASessionsCostIsFinal(t *testing.T) {
	t.Parallel()
	s := newSuite(t)
	keysvc := s.start("keysvc")
	told := s.start("proxysvc")
	muffler, muffled := newMuffler(t, keysvc.grpc)
	s.env["KEYSVC_TARGET"] = muffled
	untold := s.start("proxysvc")
	keys := keysv1.NewKeyServiceClient(keysvc.dial(t))
	issue := func() string {
		resp, err := keys.IssueSessionKey(t.Context(), &keysv1.IssueSessionKeyRequest{UserId: "s-1", TeamId: "acme", Duration: "1h"})
		if err != nil {
			t.Fatal(err)
		}
		return resp.GetSecret()
	}
	use := func(key string) {
		resp, err := ask(t.Context(), "http://"+told.http, key, "Hi")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if text, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%d %s, %v", resp.StatusCode, text, err)
		}
	}
	use(issue())
	v := &victim{key: issue(), session: "s-1", refusal: http.StatusUnauthorized} // it ends the first
	short, err := keys.CreateKey(t.Context(), &keysv1.CreateKeyRequest{UserId: "s-1", TeamId: "acme", Duration: "5s"})
	if err != nil {
		t.Fatal(err)
	}
	use(short.GetSecret())
	poll(t, func() bool {
		return post(t, told.http, short.GetSecret(), `{"model":"claude-haiku-4-5"}`).StatusCode == http.StatusUnauthorized
	})
	knocking := make(chan error, 1)
	go func() { knocking <- v.knock(t.Context(), "http://"+untold.http) }()
	poll(t, func() bool { return len(s.anthropic.Ledger()) > 5 })
	muffler.on.Store(true)
	v.revoked.Store(true)
	proxy := proxyv1.NewProxyServiceClient(told.dial(t))
	ended, err := proxy.EndSession(t.Context(), &proxyv1.EndSessionRequest{UserId: "s-1"})
	if err != nil {
		t.Fatal(err)
	}
	if err := <-knocking; err != nil {
		t.Error(err)
	}
	spend := proxyv1.NewSpendServiceClient(told.dial(t))
	account := func(kind, id string) (a *proxyv1.GetAccountResponse) {
		poll(t, func() bool {
			var err error
			if a, err = spend.GetAccount(t.Context(), &proxyv1.GetAccountRequest{Kind: kind, Id: id}); err != nil {
				t.Fatal(err)
			}
			return a.GetOpenRequests() == 0
		})
		return a
	}
	list, err := keys.ListKeys(t.Context(), &keysv1.ListKeysRequest{UserId: "s-1", IncludeEnded: true})
	if err != nil {
		t.Fatal(err)
	}
	var cost int64
	for _, k := range list.GetKeys() {
		of := account("key", k.GetKeyId()).GetSpentNanoUsd()
		if cost += of; of == 0 {
			t.Errorf("the key %s cost nothing", k.GetKeyId())
		}
	}
	if ended.GetKeys() != 3 || len(list.GetKeys()) != 3 || ended.GetCostNanoUsd() != cost || account("user", "s-1").GetSpentNanoUsd() != cost {
		t.Errorf("ended %v, want 3 keys that cost %d", ended, cost)
	}
}
