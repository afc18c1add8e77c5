package anthropic

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/sse"
)

// stream sends the answer event by event and keeps its ledger entry true to
// what was sent.
type stream struct {
	s     *Server
	c     *call
	out   *outlet
	p     prompt
	a     answer
	delay time.Duration

	usage  Usage // as it stands
	sent   int   // deltas
	output int64 // tokens
}

// stream serves a streaming request.
func (s *Server) stream(c *call, p prompt, a answer) error {
	out := newOutlet(c.w, c.encoding, p.script.trickle)
	st := &stream{s: s, c: c, out: out, p: p, a: a, delay: s.opts.ChunkDelay, usage: a.start}
	if p.script.delay >= 0 {
		st.delay = p.script.delay
	}
	h := c.w.Header()
	h.Set("content-type", "text/event-stream; charset=utf-8")
	h.Set("cache-control", "no-cache")
	c.labelEncoding()
	s.book.addEntry(Entry{ID: a.id, Model: a.model, Usage: st.usage, RequestID: c.requestID, Stream: true})
	err := st.run()
	if err != nil {
		s.book.update(a.id, func(e *Entry) { e.Finished, e.Error = false, err.Error() })
	}
	switch {
	case errors.Is(err, errCut):
		drop(c.w)
	case err == nil, errors.Is(err, errStreamError):
		_ = out.end() // the client is gone: it had the last event
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

// finish sends the end of the message. The entry says finished, and the thread
// is held, before the last event is out, so that a client that has the event
// finds them there.
func (st *stream) finish() error {
	end := messageDelta{"message_delta", stopDetail{StopReason: st.a.stopReason}, st.usage.delta()}
	if err := st.send("message_delta", end); err != nil {
		return err
	}
	st.s.book.update(st.a.id, func(e *Entry) { e.Finished = true })
	if err := st.s.keep(st.c, &st.p, &st.a); err != nil {
		return err
	}
	// The real API pads some events with blanks; a relay must keep them.
	return st.sendRaw("message_stop", `{"type":"message_stop"      }`)
}

func (st *stream) report() {
	st.s.book.update(st.a.id, func(e *Entry) { e.Usage = st.usage })
}

func (st *stream) send(name string, v any) error {
	data, err := encode(v)
	if err != nil {
		return fmt.Errorf("event %s: %w", name, err)
	}
	return st.sendRaw(name, string(data))
}

func (st *stream) sendRaw(name, data string) error {
	var event bytes.Buffer
	if err := sse.Write(&event, name, []byte(data)); err != nil {
		return err
	}
	return st.write(event.Bytes())
}

// write sends one event and flushes it. A client that is gone is errAborted.
func (st *stream) write(event []byte) error {
	if st.c.r.Context().Err() != nil {
		return errAborted
	}
	if err := st.out.send(event); err != nil {
		return errAborted
	}
	return nil
}
