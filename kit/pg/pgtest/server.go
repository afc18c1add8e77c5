package pgtest

import (
	"context"
	"os"
	"sync"
	"testing"

	"github.com/proliferate-ai/llm-proxy/kit/pg/pglocal"
)

// startServer returns a superuser's URL. The server it may start is on a leash
// and so ends with the process; nobody needs to stop it.
var startServer = sync.OnceValues(func() (string, error) {
	if url := os.Getenv("TEST_DATABASE_URL"); url != "" {
		return url, nil
	}
	s, err := pglocal.Start(context.Background(), pglocal.Options{
		Ephemeral:      true,
		Log:            os.Stderr,
		MaxConnections: 400,
	})
	if err != nil {
		return "", err
	}
	return s.URL(), nil
})

func server(t testing.TB) string {
	t.Helper()
	url, err := startServer()
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	return url
}
