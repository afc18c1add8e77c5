package openai

import "encoding/json"

// chatStream sends a chat completion chunk by chunk.
type chatStream struct {
	*flow
	chunk     completion // what all chunks say
	obfuscate bool
	reports   bool // usage is asked for
}

// step is one chunk of one choice. Steps of several choices take turns.
type step struct {
	choice int
	delta  any
	piece  *piece // nil: the delta brings nothing that was generated
	reason string // why the choice ends; empty: it does not
}

// streamChat serves a streaming request.
func (s *Server) streamChat(c *call, t *turn, req *chatRequest, done completion, answers []answer, usage Usage) error {
	done.Object = "chat.completion.chunk"
	st := &chatStream{
		flow:  s.newFlow(c, t, Entry{ID: done.ID, API: "chat", Usage: usage}),
		chunk: done, obfuscate: true,
	}
	if o := req.StreamOptions; o != nil {
		st.reports = o.IncludeUsage
		st.obfuscate = o.IncludeObfuscation == nil || *o.IncludeObfuscation
	}
	if st.reports {
		st.chunk.Usage = json.RawMessage("null")
	}
	return st.end(st.run(answers), st.sayError)
}

// run sends all chunks, or returns one of the sentinels that say why it did not.
func (st *chatStream) run(answers []answer) error {
	queues := make([][]step, len(answers))
	for i := range answers {
		queues[i] = stepsOf(i, &answers[i])
	}
	for more := true; more; {
		more = false
		for i, queue := range queues {
			if len(queue) == 0 {
				continue
			}
			if err := st.step(queue[0]); err != nil {
				return err
			}
			queues[i], more = queue[1:], true
		}
	}
	if err := st.fault(true); err != nil {
		return err
	}
	return st.finish(answers)
}

// finish says of every choice why it ends, and of all what they used.
func (st *chatStream) finish(answers []answer) error {
	for i := range answers {
		if err := st.step(step{choice: i, delta: noDelta{}, reason: answers[i].finishReason()}); err != nil {
			return err
		}
	}
	if st.reports {
		if err := st.report(); err != nil {
			return err
		}
	}
	st.finished()
	return st.sendRaw("", []byte("[DONE]"))
}

// stepsOf lists the chunks of one choice but the last. A call that nothing
// precedes begins in the first.
func stepsOf(index int, a *answer) []step {
	first := firstDelta{Role: "assistant", Content: new(string)}
	if a.call != nil && len(a.text) == 0 {
		first.Content, first.ToolCalls = nil, a.call.start()
	}
	steps := []step{{choice: index, delta: first}}
	for i := range a.text {
		steps = append(steps, step{choice: index, delta: textDelta{a.text[i].text}, piece: &a.text[i]})
	}
	if a.call != nil {
		if len(a.text) > 0 {
			steps = append(steps, step{choice: index, delta: callDelta{a.call.start()}})
		}
		for i := range a.call.pieces {
			steps = append(steps, step{choice: index, delta: a.call.more(a.call.pieces[i]), piece: &a.call.pieces[i]})
		}
	}
	return steps
}

func (st *chatStream) step(s step) error {
	chunk := st.chunk
	chunk.Choices = []any{chunkChoice{Index: s.choice, Delta: s.delta, FinishReason: nullable(s.reason)}}
	if st.obfuscate {
		chunk.Obfuscation = obfuscation("")
	}
	if s.piece == nil {
		return st.send("", chunk)
	}
	if st.obfuscate {
		chunk.Obfuscation = obfuscation(s.piece.text)
	}
	return st.delta(s.piece.tokens, "", chunk)
}

// report sends the usage, in a chunk without choices.
func (st *chatStream) report() error {
	usage, err := encode(st.usage.chat())
	if err != nil {
		return err
	}
	chunk := st.chunk
	chunk.Choices, chunk.Usage = []any{}, usage
	if st.obfuscate {
		chunk.Obfuscation = obfuscation("")
	}
	return st.reporting(func() error { return st.send("", chunk) })
}

// sayError sends an error, after which the stream ends without [DONE].
func (st *chatStream) sayError(error) error {
	return st.send("", errorBody{st.script.failure(500).detail()})
}
