package openai

import "errors"

// responseStream sends a response event by event.
type responseStream struct {
	*flow
	reply     *reply
	obfuscate bool
	keep      func() // stores the response
	sequence  int64  // the number of the next event
	index     int    // of the next output item
	done      []any  // output items that are complete
}

// streamResponse serves a streaming request.
func (s *Server) streamResponse(c *call, t *turn, req *responsesRequest, r *reply, usage Usage, keep func()) error {
	st := &responseStream{
		flow:  s.newFlow(c, t, Entry{ID: r.id, API: "responses", Usage: usage}),
		reply: r, keep: keep, obfuscate: true, done: []any{},
	}
	if o := req.StreamOptions; o != nil && o.IncludeObfuscation != nil {
		st.obfuscate = *o.IncludeObfuscation
	}
	return st.end(st.run(), st.sayError)
}

// run sends all events, or returns one of the sentinels that say why it did not.
func (st *responseStream) run() error {
	r := st.reply
	for _, name := range []string{"response.created", "response.in_progress"} {
		if err := st.lifecycle(name, r.body("in_progress", []any{}, nil)); err != nil {
			return err
		}
	}
	if r.answer.reasoning > 0 {
		if err := st.item(r.reasoningItem(), r.reasoningItem(), nil); err != nil {
			return err
		}
	}
	if len(r.answer.text) > 0 {
		if err := st.message(); err != nil {
			return err
		}
	}
	if r.answer.call != nil {
		if err := st.call(r.answer.call); err != nil {
			return err
		}
	}
	if err := st.fault(true); err != nil {
		return err
	}
	return st.finish()
}

// finish stores the response and sends it whole. Store and ledger are ready
// before the event is out, so that a client that has it finds them so.
func (st *responseStream) finish() error {
	st.keep()
	st.finished()
	status := st.reply.outcome()
	body := st.reply.body(status, st.reply.items(), st.usage.response())
	return st.reporting(func() error { return st.lifecycle("response."+status, body) })
}

// message sends the text, which is one part of one item.
func (st *responseStream) message() error {
	r := st.reply
	first := r.messageItem("in_progress", "")
	first.Content = []outputText{}
	full := joined(r.answer.text)
	last := r.messageItem(r.statusBefore(r.answer.call == nil), full)
	return st.item(first, last, func() error {
		at := place{ItemID: r.messageID, OutputIndex: st.index}
		if err := st.emit("response.content_part.added", func(h eventHead) any { return partEvent{h, at, textPart("")} }); err != nil {
			return err
		}
		for _, p := range r.answer.text {
			err := st.piece(p, "response.output_text.delta", func(h eventHead, pad string) any {
				return textDeltaEvent{h, at, p.text, []string{}, pad}
			})
			if err != nil {
				return err
			}
		}
		if err := st.emit("response.output_text.done", func(h eventHead) any { return textDoneEvent{h, at, full, []string{}} }); err != nil {
			return err
		}
		return st.emit("response.content_part.done", func(h eventHead) any { return partEvent{h, at, textPart(full)} })
	})
}

// call sends a function call.
func (st *responseStream) call(call *toolCall) error {
	full := joined(call.pieces)
	return st.item(call.item("in_progress", ""), call.item(st.reply.outcome(), full), func() error {
		for _, p := range call.pieces {
			err := st.piece(p, "response.function_call_arguments.delta", func(h eventHead, pad string) any {
				return argumentsDeltaEvent{h, call.itemID, st.index, p.text, pad}
			})
			if err != nil {
				return err
			}
		}
		return st.emit("response.function_call_arguments.done", func(h eventHead) any {
			return argumentsDoneEvent{h, call.itemID, st.index, full, call.name}
		})
	})
}

// item sends an output item: as it begins, what inside sends, as it ends.
func (st *responseStream) item(first, last any, inside func() error) error {
	if err := st.emit("response.output_item.added", func(h eventHead) any { return itemEvent{h, st.index, first} }); err != nil {
		return err
	}
	if inside != nil {
		if err := inside(); err != nil {
			return err
		}
	}
	if err := st.emit("response.output_item.done", func(h eventHead) any { return itemEvent{h, st.index, last} }); err != nil {
		return err
	}
	st.done = append(st.done, last)
	st.index++
	return nil
}

func (st *responseStream) lifecycle(name string, body responseBody) error {
	return st.emit(name, func(h eventHead) any { return lifecycleEvent{h, body} })
}

// piece sends one delta; a fault that comes in its place takes its number.
func (st *responseStream) piece(p piece, name string, event func(h eventHead, pad string) any) error {
	pad := ""
	if st.obfuscate {
		pad = obfuscation(p.text)
	}
	if err := st.delta(p.tokens, name, event(eventHead{name, st.sequence}, pad)); err != nil {
		return err
	}
	st.sequence++
	return nil
}

func (st *responseStream) emit(name string, event func(eventHead) any) error {
	if err := st.send(name, event(eventHead{name, st.sequence})); err != nil {
		return err
	}
	st.sequence++
	return nil
}

// sayError sends an error event, or a response that failed with the output that
// was complete and without usage, as OpenAI was seen to send it.
func (st *responseStream) sayError(err error) error {
	failure := st.script.failure(500)
	if errors.Is(err, errStreamError) {
		return st.emit("error", func(h eventHead) any { return errorEvent{h, failure.detail()} })
	}
	body := st.reply.body("failed", st.done, nil)
	body.Error = &responseError{failure.Code, failure.Message}
	return st.lifecycle("response.failed", body)
}
