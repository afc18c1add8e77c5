package upstream

import (
	"fmt"
	"strconv"
	"time"
)

// What every answer says it used, so that its price is known.
const (
	InputTokens  = 500
	OutputTokens = 200
)

// Model is the model that answers.
const Model = "claude-sonnet-4-5"

// plainFormat is an answer that is not streamed: only the ids change, which have
// twenty digits.
var plainFormat = func() string {
	const body = `{"id":"msg_%020[1]d","type":"message","role":"assistant","model":"` + Model + `",` +
		`"content":[{"type":"text","text":"Measured answers need not be long, but an agent's are rarely shorter than this one, which says nothing at all in about as many bytes as a short answer has. It goes on for a little while, then it ends."}],` +
		`"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":%[2]d,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,` +
		`"output_tokens":%[3]d,"service_tier":"standard"}}`
	length := len(fmt.Sprintf(body, 0, InputTokens, OutputTokens))
	return "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nRequest-Id: req_%020[1]d\r\nContent-Length: " + strconv.Itoa(length) + "\r\n\r\n" + body
}()

// message answers one request.
func (c *client) message(stream bool) error {
	asked := time.Now()
	n := c.server.begun.Add(1)
	var err error
	if stream {
		err = c.stream(n, *c.server.pace.Load(), asked)
	} else {
		c.out = fmt.Appendf(c.out[:0], plainFormat, n, InputTokens, OutputTokens)
		_, err = c.conn.Write(c.out)
	}
	if err != nil {
		return err
	}
	c.server.ended.Add(1)
	c.server.lastByte.Store(time.Now().UnixNano())
	return nil
}

// stream sends one answer as events, each a chunk of its own. The first one has how long
// it took since the request was asked: timers are late, by up to a millisecond.
func (c *client) stream(n int64, p Pace, asked time.Time) error {
	time.Sleep(p.First)
	c.out = append(c.out[:0], "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-cache\r\nX-Accel-Buffering: no\r\nTransfer-Encoding: chunked\r\n\r\n"...)
	c.event("message_start", `{"type":"message_start","message":{"id":"msg_%020d","type":"message","role":"assistant","model":"`+Model+
		`","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":%d,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":1}},"thought_ns":%d}`, n, InputTokens, time.Since(asked))
	c.event("content_block_start", `{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}`)
	for i := range p.Deltas {
		if i > 0 && p.Gap > 0 {
			if err := c.flush(); err != nil {
				return err
			}
			time.Sleep(p.Gap)
		}
		c.event("content_block_delta", `{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a few words more, "},"sent_at":%d}`, time.Now().UnixNano())
	}
	if p.Gap > 0 {
		if err := c.flush(); err != nil {
			return err
		}
		time.Sleep(p.Gap)
	}
	c.event("content_block_stop", `{"type":"content_block_stop","index":0}`)
	c.event("message_delta", `{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":%d}}`, OutputTokens)
	c.event("message_stop", `{"type":"message_stop","sent_at":%d}`, time.Now().UnixNano())
	c.out = append(c.out, "0\r\n\r\n"...)
	return c.flush()
}

// event adds one event, as one chunk, to what is sent next.
func (c *client) event(name, format string, args ...any) {
	const digits = 4 // of the chunk's size, in hex
	at := len(c.out)
	c.out = append(c.out, "0000\r\nevent: "...)
	c.out = append(c.out, name...)
	c.out = append(c.out, "\ndata: "...)
	c.out = fmt.Appendf(c.out, format, args...)
	c.out = append(c.out, "\n\n"...)
	size := fmt.Sprintf("%04x", len(c.out)-at-digits-2)
	copy(c.out[at:], size)
	c.out = append(c.out, "\r\n"...)
}

func (c *client) flush() error {
	_, err := c.conn.Write(c.out)
	c.out = c.out[:0]
	return err
}
