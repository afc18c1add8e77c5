package proxy

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/head"
	"github.com/proliferate-ai/llm-proxy/kit/leash"
	"github.com/proliferate-ai/llm-proxy/kit/secret"
	"github.com/proliferate-ai/llm-proxy/kit/sse"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/hotpath"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/journal"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/pricing"
)

// What surrounds the pipeline in these benchmarks costs as little as it can, so
// that what is measured is the pipeline.
type (
	oneKey  Key                            // is every key
	answers struct{ plain, stream []byte } // is an upstream
	swallow struct{ bytes int }            // is a client
	nowhere struct{ ledger.Store }         // keeps nothing
	quiet   struct{}                       // says nothing
)

func (k *oneKey) Verify(context.Context, secret.String) (*Key, error) { return (*Key)(k), nil }

func (a *answers) Send(_ context.Context, r UpstreamRequest) (*UpstreamResponse, error) {
	h := append(make(head.Lines, 0, 2+OurHeaders), head.Line{Name: "Content-Type", Value: "application/json"}, head.Line{Name: "Request-Id", Value: "req_upstream"})
	body := a.plain
	if bytes.Contains(r.Body.Pieces()[0][:64], []byte(`"stream":true`)) {
		h[0].Value, body = "text/event-stream", a.stream
	}
	return &UpstreamResponse{Status: 200, Header: h, Body: io.NopCloser(bytes.NewReader(body))}, nil
}

func (s *swallow) Start(int, head.Lines) error { return nil }
func (s *swallow) Stop()                       {}
func (s *swallow) Last(p []byte) error         { return s.Write(p) }
func (s *swallow) Write(p []byte) error {
	s.bytes += len(p)
	return nil
}

func (nowhere) OpenLog(context.Context, string) (ledger.Open, error) {
	return ledger.Open{LogID: 1}, nil
}

func (nowhere) Commit(_ context.Context, b *ledger.Batch) error {
	b.Decide(nil, time.Time{})
	return nil
}

func (nowhere) TakeOver(context.Context, int64, time.Duration) ([]*ledger.Settlement, error) {
	return nil, nil
}
func (nowhere) FreeResiduals(context.Context) error    { return nil }
func (nowhere) CloseLogs(context.Context, int64) error { return nil }
func (nowhere) CloseLog(context.Context, int64) error  { return nil }

func (quiet) Committed(int, int, time.Duration) {}
func (quiet) Trouble(string, error)             {}

// hotService is a Service with everything around it as cheap as can be.
func hotService(tb testing.TB) *Service {
	tb.Helper()
	book, err := pricing.Default()
	if err != nil {
		tb.Fatal(err)
	}
	held, _, err := journal.Open[ledger.Record](tb.TempDir())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { held.Close() }) // nothing is in it
	writer := ledger.NewWriter(nowhere{}, held, nil, ledger.Settings{Heartbeat: time.Hour, AdmitTimeout: time.Minute}, quiet{})
	go writer.Run(tb.Context()) //nolint:errcheck // Stop ends it
	tb.Cleanup(func() { writer.Stop(); <-writer.Done() })
	return New(Parts{
		Keys:   &oneKey{KeyID: "key_1", TeamID: "team_1", UserID: "session_1"},
		Ledger: writer, Upstream: &answers{[]byte(plainAnswer), []byte(start + strings.Repeat(delta, 20) + end)},
		Router:  NewRouter(Routing{Deployments: []Deployment{{ID: "d", ModelName: "claude-*", Provider: Anthropic, Model: "claude-*", Weight: 1}}}),
		Book:    book,
		Running: NewRunning(false), Settled: func(*ledger.Settlement) {}, Withdrawn: func(Deployment, int) {}, Warn: func(ledger.Warning) {},
		Settings: Settings{IdleTimeout: time.Minute, ProgressInterval: time.Minute, SettleTimeout: time.Minute},
	})
}

const (
	plainAnswer = `{"id":"msg_1","type":"message","role":"assistant","model":"claude-sonnet-4-5","content":[{"type":"text","text":"Good day."}],` +
		`"stop_reason":"end_turn","usage":{"input_tokens":500,"output_tokens":200,"service_tier":"standard"}}`
	start = "event: message_start\n" +
		`data: {"type":"message_start","message":{"id":"msg_1","type":"message","model":"claude-sonnet-4-5","usage":{"input_tokens":500,"output_tokens":1}}}` + "\n\n"
	delta = "event: content_block_delta\n" +
		`data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a few words more, "}}` + "\n\n"
	end = "event: message_delta\n" + `data: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":200}}` + "\n\n" +
		"event: message_stop\n" + `data: {"type":"message_stop"}` + "\n\n"
)

// hotBody is a request of about size bytes.
func hotBody(size int, stream bool) []byte {
	return fmt.Appendf(nil, `{"model":"claude-sonnet-4-5","max_tokens":1024,"stream":%t,"messages":[{"role":"user","content":"%s"}]}`,
		stream, strings.Repeat("Refactor it, and say why.\\n", size/28))
}

func hotCall(body []byte) Call {
	return Call{
		API: Messages, Path: "/v1/messages", RequestID: "req_1", Key: secret.New("sk-virtual"), Body: body,
		Header: Header{
			"Content-Type": {"application/json"}, "Anthropic-Version": {"2023-06-01"}, "User-Agent": {"claude-cli/2.0.1"}, "X-App": {"cli"},
			"X-Api-Key": {"sk-virtual"}, "Accept": {"application/json"},
		},
	}
}

// hot are what every request, or every event of a stream, runs.
func hot(tb testing.TB) []hotpath.Operation {
	tb.Helper()
	svc := hotService(tb)
	small, streamed, large := hotBody(2<<10, false), hotBody(2<<10, true), hotBody(200<<10, false)
	scan := func(body []byte) func() {
		return func() {
			r, err := Scan(Messages, body)
			if err != nil {
				tb.Fatal(err)
			}
			bound(r)
		}
	}
	client := (&leash.Leash{}).Begin(tb.Context()) // as lean has it
	request := func(body []byte) func() {
		call := hotCall(body)
		return func() {
			sink := swallow{}
			if err := svc.CreateMessage(client, call, &sink); err != nil || sink.bytes == 0 {
				tb.Fatal(err)
			}
		}
	}
	events := &stream{run: &run{outbound: outbound{call: Call{API: Messages}}, meter: Messages.newMeter(0, false)}, split: sse.NewSplitter(maxEvent)}
	piece, whole := []byte(delta), []byte(plainAnswer)
	return []hotpath.Operation{
		{Name: "Scan2KB", Allocs: 1, Run: scan(small)},
		{Name: "Scan200KB", Allocs: 1, Run: scan(large)},
		{Name: "ScanCode200KB", Allocs: 1, Run: scan([]byte(messageOf(quoted(strings.Repeat("\tif name == \"\" {\n\t\treturn fmt.Errorf(\"no %q\", name)\n\t}\n", 3600)), "")))},
		{Name: "ScanJSON200KB", Allocs: 1, Run: scan([]byte(messageOf(quoted(strings.Repeat(`{"name":"tool","description":"does a thing"},`, 3600)), "")))},
		{Name: "Delta", Allocs: 0, Run: func() { events.ready = nil; events.take(piece) }},
		{Name: "MeterWhole", Allocs: 2, Run: func() { Messages.newMeter(0, false).Body(whole) }},
		{Name: "RequestPlain", Allocs: 31, Run: request(small)},
		{Name: "RequestStream20Deltas", Allocs: 46, Run: request(streamed)},
	}
}

func BenchmarkProxy(b *testing.B) { hotpath.Bench(b, hot(b)) }
