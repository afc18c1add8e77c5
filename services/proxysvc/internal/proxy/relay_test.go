package proxy

import (
	"context"
	"io"
	"strings"
	"testing"

	"github.com/proliferate-ai/llm-proxy/kit/head"
)

// inPieces is an upstream whose answer comes in pieces; ended says whether its end came
// with the last one.
type inPieces struct {
	left  []string
	ended bool
}

func (u *inPieces) Send(context.Context, UpstreamRequest) (*UpstreamResponse, error) {
	return &UpstreamResponse{Status: 200, Header: head.Lines{{Name: "Content-Type", Value: "text/event-stream"}}, Body: u}, nil
}

func (u *inPieces) Next() ([]byte, error) {
	if len(u.left) == 0 {
		return nil, io.EOF
	}
	p := u.left[0]
	u.left = u.left[1:]
	return []byte(p), nil
}

func (u *inPieces) Read(p []byte) (int, error) {
	b, err := u.Next()
	return copy(p, b), err
}

func (u *inPieces) Ready() bool  { return len(u.left) > 0 }
func (u *inPieces) Ended() bool  { return u.ended && len(u.left) == 0 }
func (u *inPieces) Close() error { return nil }

// taker is a client that takes an answer, and notes what it may get with its end.
type taker struct{ all, last strings.Builder }

func (*taker) Start(int, head.Lines) error { return nil }
func (*taker) Stop()                       {}

func (c *taker) Write(p []byte) error {
	c.all.Write(p)
	return nil
}

func (c *taker) Last(p []byte) error {
	c.last.Write(p)
	return c.Write(p)
}

// TestTheLastEventGoesWithTheEnd has the end of an answer come with its last event, and
// later: then nobody knows when, and the event goes at once.
func TestTheLastEventGoesWithTheEnd(t *testing.T) {
	t.Parallel()
	const stop = "event: message_stop\n" + `data: {"type":"message_stop"}` + "\n\n"
	for name, tt := range map[string]struct {
		pieces []string
		ended  bool
		last   string
	}{
		"with it":                     {[]string{start, delta + end}, true, stop},
		"later":                       {[]string{start, delta + end}, false, ""},
		"behind something more":       {[]string{start, delta + end, ": a comment\n\n"}, true, ""},
		"with it, and something more": {[]string{start, delta + end + ": a comment\n\n"}, true, stop + ": a comment\n\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			svc := hotService(t)
			svc.upstream = &inPieces{tt.pieces, tt.ended}
			client := &taker{}
			if err := svc.CreateMessage(t.Context(), hotCall(hotBody(2<<10, true)), client); err != nil {
				t.Fatal(err)
			}
			if got, want := client.all.String(), strings.Join(tt.pieces, ""); got != want {
				t.Errorf("the client got %q, want %q", got, want)
			}
			if got := client.last.String(); got != tt.last {
				t.Errorf("with the end came %q, want %q", got, tt.last)
			}
		})
	}
}
