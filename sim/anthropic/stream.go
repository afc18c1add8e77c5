package anthropic

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/sse"
)

// stream sends the answer event by event and keeps its ledger entry true to
// what was sent.
type stream struct {
	c     *call
	book  *book
	p     prompt
	a     answer
	delay time.Duration

	usage  Usage // as it stands
	sent   int   // deltas
	output int64 // tokens
}

// stream serves a streaming request.
func (s *Server) stream(c *call, p prompt, a answer) error {
	st := &stream{c: c, book: &s.book, p: p, a: a, delay: s.opts.ChunkDelay, usage: a.start}
	if p.script.delay >= 0 {
		st.delay = p.script.delay
	}
	h := c.w.Header()
	h.Set("content-type", "text/event-stream; charset=utf-8")
	h.Set("cache-control", "no-cache")
	s.book.addEntry(Entry{ID: a.id, Model: a.model, Usage: st.usage, RequestID: c.requestID, Stream: true})
	err := st.run()
	if err != nil {
		s.book.update(a.id, func(e *Entry) { e.Finished, e.Error = false, err.Error() })
	}
	if errors.Is(err, errCut) {
		drop(c.w)
	}
	return err
}

// run sends all events, or returns one of the sentinels that say why it did not.
func (st *stream) run() error {
	if err := st.send("message_start", messageStart{"message_start", st.a.message([]any{}, nil, st.usage)}); err != nil {
		return err
	}
	for i := range st.a.blocks {
		if err := st.block(i, &st.a.blocks[i]); err != nil {
			return err
		}
	}
	if err := st.fault(true); err != nil {
		return err
	}
	return st.finish()
}

// block sends one content block. The ping after the first start is where the
// real API sends it.
func (st *stream) block(index int, b *answerBlock) error {
	if b.kind == "web_search_tool_result" {
		st.usage = st.usage.withSearches(st.a.searches)
		st.report()
	}
	if err := st.send("content_block_start", blockStart{"content_block_start", index, b.first()}); err != nil {
		return err
	}
	if index == 0 {
		if err := st.sendRaw("ping", `{"type": "ping"}`); err != nil {
			return err
		}
	}
	for _, p := range b.pieces {
		if err := st.delta(index, b, p); err != nil {
			return err
		}
	}
	return st.send("content_block_stop", blockStop{"content_block_stop", index})
}

func (st *stream) delta(index int, b *answerBlock, p piece) error {
	if err := st.fault(false); err != nil {
		return err
	}
	if err := pause(st.c.r.Context(), st.delay); err != nil {
		return err
	}
	if err := st.send("content_block_delta", blockDelta{"content_block_delta", index, b.delta(p)}); err != nil {
		return err
	}
	st.sent++
	st.output += p.tokens
	st.usage.OutputTokens = max(st.output, 1)
	st.report()
	return nil
}

// finish sends the end of the message. The entry says finished before the last
// event is out, so that a client that has the event finds it there.
func (st *stream) finish() error {
	end := messageDelta{"message_delta", stopDetail{StopReason: st.a.stopReason}, st.usage.delta()}
	if err := st.send("message_delta", end); err != nil {
		return err
	}
	st.book.update(st.a.id, func(e *Entry) { e.Finished = true })
	// The real API pads some events with blanks; a relay must keep them.
	return st.sendRaw("message_stop", `{"type":"message_stop"      }`)
}

// fault does what the script wants at this point. At the end of the message
// everything that has not come yet is due.
func (st *stream) fault(atEnd bool) error {
	due := func(after int) bool {
		return after == st.sent || (atEnd && after > st.sent)
	}
	switch sc := st.p.script; {
	case due(sc.cutAfter):
		return errCut
	case due(sc.stallAfter):
		<-st.c.r.Context().Done()
		return errStalled
	case due(sc.streamErrorAfter):
		body := errorBody{Type: "error", Error: errorDetail{sc.errorType, "Overloaded"}, RequestID: st.c.requestID}
		if err := st.send("error", body); err != nil {
			return err
		}
		return errStreamError
	}
	return nil
}

func (st *stream) report() {
	st.book.update(st.a.id, func(e *Entry) { e.Usage = st.usage })
}

func (st *stream) send(name string, v any) error {
	data, err := encode(v)
	if err != nil {
		return fmt.Errorf("event %s: %w", name, err)
	}
	return st.sendRaw(name, string(data))
}

// sendRaw writes one event and flushes it. A client that is gone is errAborted.
func (st *stream) sendRaw(name, data string) error {
	if st.c.r.Context().Err() != nil {
		return errAborted
	}
	if err := sse.Write(st.c.w, name, []byte(data)); err != nil {
		return errAborted
	}
	if err := http.NewResponseController(st.c.w).Flush(); err != nil {
		return errAborted
	}
	return nil
}
