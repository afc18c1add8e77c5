package dev

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// goSDK is what both majors of Anthropic's Go SDK can do, in words of our own,
// so that the scenarios are written once.
type goSDK interface {
	// send sends one message. Of a stream, each is called for every event, with
	// the text that it brings.
	send(ctx context.Context, ask goAsk, each func(event, text string)) (goAnswer, error)
	count(ctx context.Context, ask goAsk) (int64, error)
	models(ctx context.Context) ([]string, error)
	model(ctx context.Context, id string) (string, error)
	// apiError takes the SDK's own error apart; status is 0 if it is not one.
	apiError(err error) (status int, kind, requestID string)
}

type goAsk struct {
	model, text, user string
	stream, tool      bool
	betas             []string
	messages          any // those of an answer's next turn, in the SDK's own type
}

type goAnswer struct {
	answered
	text, stopReason, input string
	next                    any // the messages of the turn that brings the tool's result
}

// goPlay is one scenario as it runs. It is the client's transport, to note what
// is sent.
type goPlay struct {
	seat
	name    string
	connect func(*goPlay, string, string) goSDK // with a base URL and a key

	mu      sync.Mutex
	sent    []sent
	answers []answered
}

const (
	goWords  = "Grüße aus der 世界 🌍: each of these tokens was counted, and none of them was lost."
	goUsual  = "This is a simulated answer. Every token of it was counted, and none of it was meant."
	goCall   = `Balance? [[sim:tool=balance;input={"team":"acme – 世界"}]]`
	goSay    = "[[sim:say=" + goWords + "]]"
	goLength = 20 << 20
)

// golang makes a client of one major of the SDK.
func golang(connect func(*goPlay, string, string) goSDK) func(*testing.T, seat) []report {
	return func(t *testing.T, at seat) []report {
		t.Helper()
		reports := make([]report, len(at.scenarios))
		var all sync.WaitGroup
		for i, name := range at.scenarios {
			act, known := goScenarios[name]
			if !known {
				continue
			}
			all.Go(func() {
				p := &goPlay{seat: at, name: name, connect: connect}
				err := act(t.Context(), p)
				reports[i] = report{Name: name, OK: err == nil, Detail: fmt.Sprint(err), Sent: p.sent, Answers: p.answers}
			})
		}
		all.Wait()
		return reports
	}
}

// RoundTrip implements http.RoundTripper.
func (p *goPlay) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	sum := sha256.Sum256(body)
	p.mu.Lock()
	p.sent = append(p.sent, sent{
		r.Method, r.URL.Path, r.URL.RawQuery, hex.EncodeToString(sum[:]), r.Header.Get("Anthropic-Version"), r.Header.Get("Anthropic-Beta"),
	})
	p.mu.Unlock()
	r.Header.Set("X-Scenario", p.client+"/"+p.name)
	return http.DefaultTransport.RoundTrip(r)
}

func (p *goPlay) sdk() goSDK { return p.connect(p, p.url, p.key) }

// say sends one message, notes the answer and checks its text.
func (p *goPlay) say(ctx context.Context, sdk goSDK, ask goAsk, want string) (goAnswer, error) {
	var order []string
	var text strings.Builder
	a, err := sdk.send(ctx, p.asking(ask), func(event, piece string) {
		if len(order) == 0 || order[len(order)-1] != event {
			order = append(order, event)
		}
		text.WriteString(piece)
	})
	if err != nil {
		return a, err
	}
	p.mu.Lock()
	p.answers = append(p.answers, a.answered)
	p.mu.Unlock()
	if want != "" && (a.text != want || (ask.stream && text.String() != want)) {
		return a, fmt.Errorf("it said %q in %q, want %q", a.text, text.String(), want)
	}
	if ask.stream && !slices.Equal(order, []string{
		"message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta", "message_stop",
	}) {
		return a, fmt.Errorf("the order of the events is %v", order)
	}
	return a, nil
}

// asking fills in what every request has. Texts name the client, since the
// simulator counts errors by their text.
func (p *goPlay) asking(ask goAsk) goAsk {
	ask.text = p.client + ": " + ask.text
	if ask.model == "" {
		ask.model = "claude-haiku-4-5"
	}
	return ask
}

// once says one thing and wants one text.
func once(ask goAsk, want string) func(context.Context, *goPlay) error {
	return func(ctx context.Context, p *goPlay) error {
		_, err := p.say(ctx, p.sdk(), ask, want)
		return err
	}
}

func toolRound(stream bool) func(context.Context, *goPlay) error {
	return func(ctx context.Context, p *goPlay) error {
		sdk := p.sdk()
		ask := goAsk{text: goCall, tool: true, stream: stream}
		first, err := p.say(ctx, sdk, ask, "")
		if err != nil {
			return err
		}
		if first.stopReason != "tool_use" || first.input != `{"team":"acme – 世界"}` {
			return fmt.Errorf("the call is %+v", first)
		}
		ask.messages = first.next
		_, err = p.say(ctx, sdk, ask, goUsual)
		return err
	}
}

// rejected sends one request that is refused for good, and sent once.
func rejected(ask goAsk, key func(seat) string, status int, kind string) func(context.Context, *goPlay) error {
	return func(ctx context.Context, p *goPlay) error {
		sdk := p.connect(p, p.url, key(p.seat))
		_, err := sdk.send(ctx, p.asking(ask), nil)
		gotStatus, gotKind, requestID := sdk.apiError(err)
		if gotStatus != status || gotKind != kind || requestID == "" || len(p.sent) != 1 {
			return fmt.Errorf("%d requests, answered %d %s, request %q: %w", len(p.sent), gotStatus, gotKind, requestID, err)
		}
		return nil
	}
}

func ownKey(at seat) string { return at.key }

// broken reads a stream that does not end well.
func broken(script, kind string) func(context.Context, *goPlay) error {
	return func(ctx context.Context, p *goPlay) error {
		var text strings.Builder
		sdk := p.sdk()
		_, err := sdk.send(ctx, p.asking(goAsk{text: "[[sim:" + script + ";say=" + goWords + "]]", stream: true}), func(_, piece string) { text.WriteString(piece) })
		if err == nil || text.Len() == 0 || text.Len() >= len(goWords) || len(p.sent) != 1 {
			return fmt.Errorf("%d requests, %q, and then %w", len(p.sent), text.String(), err)
		}
		if _, got, _ := sdk.apiError(err); got != kind {
			return fmt.Errorf("an error of type %q, want %q: %w", got, kind, err)
		}
		return nil
	}
}

// goScenarios are the scenarios of anthropicScenarios in Go.
var goScenarios = map[string]func(context.Context, *goPlay) error{
	"a stream":                         once(goAsk{text: goSay, stream: true}, goWords),
	"an answer in one piece":           once(goAsk{text: goSay}, goWords),
	"a tool and its result":            toolRound(false),
	"a tool and its result in streams": toolRound(true),
	"a beta":                           once(goAsk{text: goSay, betas: []string{"one-2026-01-01", "unknown-2026-01-02"}}, goWords),
	"a request of 20 MB":               once(goAsk{text: goSay, stream: true, user: strings.Repeat("A", goLength)}, goWords),
	"a base URL that ends in v1": func(ctx context.Context, p *goPlay) error {
		_, err := p.say(ctx, p.connect(p, p.url+"/v1", p.key), goAsk{text: goSay}, goWords)
		return err
	},
	"twenty streams at once":   twentyStreams,
	"counted tokens":           countedTokens,
	"the list of models":       listOfModels,
	"one model":                oneModel,
	"a bad request":            rejected(goAsk{text: "[[sim:error=400]]"}, ownKey, 400, "invalid_request_error"),
	"a wrong key":              rejected(goAsk{}, func(seat) string { return wrongKey }, 401, "authentication_error"),
	"a budget that is used up": rejected(goAsk{}, func(at seat) string { return at.poorKey }, 402, "billing_error"),
	"an unknown model":         rejected(goAsk{model: "no-such-model"}, ownKey, 404, "not_found_error"),
	"a rate limit that passes": func(ctx context.Context, p *goPlay) error {
		begun := time.Now()
		err := once(goAsk{text: "[[sim:error=429;retry_after=2;times=1]]"}, goUsual)(ctx, p)
		if passed := time.Since(begun); err == nil && passed < 2*time.Second { // told nothing, it waits for half of one
			return fmt.Errorf("retry-after did not arrive: %v", passed)
		}
		return err
	},
	"an overload that passes": once(goAsk{text: "[[sim:error=529;times=2]]", stream: true}, goUsual),
	"an error in the stream":  broken("stream_error=after:2", "overloaded_error"),
	"a cut connection":        broken("cut=after:2", ""),
	"an abort":                leave,
}

func twentyStreams(ctx context.Context, p *goPlay) error {
	sdk := p.sdk()
	errs := make([]error, 20)
	var all sync.WaitGroup
	for n := range errs {
		all.Go(func() {
			text := fmt.Sprintf("%d: %s", n, goWords)
			_, errs[n] = p.say(ctx, sdk, goAsk{text: "[[sim:delay_ms=5;say=" + text + "]]", stream: true}, text)
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

func countedTokens(ctx context.Context, p *goPlay) error {
	sdk, ask := p.sdk(), goAsk{text: "How long is this?"}
	count, err := sdk.count(ctx, p.asking(ask))
	if err != nil {
		return err
	}
	a, err := p.say(ctx, sdk, ask, goUsual)
	if err == nil && a.InputTokens != count {
		return fmt.Errorf("%d tokens were counted, %d used", count, a.InputTokens)
	}
	return err
}

func listOfModels(ctx context.Context, p *goPlay) error {
	ids, err := p.sdk().models(ctx)
	if err == nil && (!slices.Contains(ids, "claude-haiku-4-5") || len(ids) != len(slices.Compact(slices.Sorted(slices.Values(ids))))) {
		return fmt.Errorf("the models are %v", ids)
	}
	return err
}

func oneModel(ctx context.Context, p *goPlay) error {
	sdk := p.sdk()
	if id, err := sdk.model(ctx, "claude-haiku-4-5"); err != nil || id != "claude-haiku-4-5" {
		return fmt.Errorf("a model: %q, %w", id, err)
	}
	_, err := sdk.model(ctx, "no-such-model")
	if status, _, _ := sdk.apiError(err); status != http.StatusNotFound {
		return fmt.Errorf("an unknown model: %w", err)
	}
	return nil
}

// leave goes away at the first text.
func leave(ctx context.Context, p *goPlay) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ask := goAsk{text: "[[sim:delay_ms=50;output_tokens=1000]]", stream: true}
	_, err := p.sdk().send(ctx, p.asking(ask), func(_, text string) {
		if text != "" {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		return fmt.Errorf("a request that was left: %w", err)
	}
	return nil
}
