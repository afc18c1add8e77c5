package dev

import (
	"context"
	wire "encoding/binary"
	"errors"
	"io"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
	"github.com/proliferate-ai/llm-proxy/kit/secret"
	"github.com/proliferate-ai/llm-proxy/kit/serve"
)

// muffler stands between a proxy and keysvc. While it is on, changes and
// heartbeats are lost and watches stay open; questions are answered as ever, unless
// it is mute too.
type muffler struct {
	keysv1.UnimplementedKeyServiceServer
	api      keysv1.KeyServiceClient
	on, mute atomic.Bool
}

// newMuffler returns one in front of keysvc, and its address.
func newMuffler(t *testing.T, target string) (*muffler, string) {
	t.Helper()
	conn, err := serve.Caller{Token: secret.New(serviceToken)}.Dial(target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	m := &muffler{api: keysv1.NewKeyServiceClient(conn)}
	server := grpc.NewServer()
	keysv1.RegisterKeyServiceServer(server, m)
	lis, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // immediate
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve(lis) //nolint:errcheck // it ends with Stop
	t.Cleanup(server.Stop)
	return m, lis.Addr().String()
}

// VerifyKey implements KeyService.
func (m *muffler) VerifyKey(ctx context.Context, r *keysv1.VerifyKeyRequest) (*keysv1.VerifyKeyResponse, error) {
	if m.mute.Load() {
		return nil, status.Error(codes.Unavailable, "no answer")
	}
	return m.api.VerifyKey(ctx, r)
}

// WatchKeys implements KeyService. A watch of which something was lost never goes
// on: it would tell of a log without a gap.
func (m *muffler) WatchKeys(r *keysv1.WatchKeysRequest, to grpc.ServerStreamingServer[keysv1.WatchKeysResponse]) error {
	from, err := m.api.WatchKeys(to.Context(), r)
	if err != nil {
		return err
	}
	for lost := false; ; {
		msg, err := from.Recv()
		switch {
		case m.on.Load():
			if lost = true; err != nil {
				<-to.Context().Done()
				return err
			}
			continue
		case lost:
			return status.Error(codes.Unavailable, "something was lost")
		case err != nil:
			return err
		}
		if err := to.Send(msg); err != nil {
			return err
		}
	}
}

// withoutNotifications returns the URL of a way to the same database on which
// Postgres's notifications are lost; all else passes.
// It is there until the suite has stopped.
func (s *suite) withoutNotifications(database string) string {
	t := s.t
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	server := u.Host
	lis, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // immediate
	if err != nil {
		t.Fatal(err)
	}
	var links sync.WaitGroup
	s.stopped = append(s.stopped, func() {
		lis.Close() // nothing is lost
		links.Wait()
	})
	links.Go(func() {
		for {
			client, err := lis.Accept()
			if err != nil {
				return
			}
			links.Go(func() { link(t, client, server) })
		}
	})
	u.Host = lis.Addr().String()
	return u.String()
}

// link joins a client to Postgres until either leaves.
func link(t testing.TB, client net.Conn, server string) {
	defer client.Close()
	pg, err := net.Dial("tcp", server) //nolint:noctx // immediate
	if err != nil {
		t.Error(err)
		return
	}
	defer pg.Close()
	var up sync.WaitGroup
	up.Go(func() {
		io.Copy(pg, client) //nolint:errcheck // one of them left
		pg.Close()
	})
	if err := passButNotifications(client, pg); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
		t.Logf("a link to Postgres: %v", err) // it broke, as links do when a process is killed
	}
	client.Close()
	up.Wait()
}

// passButNotifications copies messages of Postgres's protocol, each a type and a
// length that counts itself.
func passButNotifications(to io.Writer, from io.Reader) error {
	const notification = 'A'
	for {
		head := make([]byte, 5)
		if _, err := io.ReadFull(from, head); err != nil {
			return err
		}
		body := make([]byte, wire.BigEndian.Uint32(head[1:])-4)
		if _, err := io.ReadFull(from, body); err != nil {
			return err
		}
		if head[0] == notification {
			continue
		}
		if _, err := to.Write(append(head, body...)); err != nil {
			return err
		}
	}
}
