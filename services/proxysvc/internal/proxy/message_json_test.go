package proxy

import (
	"encoding/json"
	"reflect"
	"regexp"
	"testing"
)

// jsonMessage and jsonUsage are what is read, in encoding/json's words.
type jsonMessage struct {
	ID         string    `json:"id"`
	StopReason string    `json:"stop_reason"`
	Usage      jsonUsage `json:"usage"`
}

type jsonUsage struct {
	InputTokens              *int64 `json:"input_tokens"`
	OutputTokens             *int64 `json:"output_tokens"`
	CacheReadInputTokens     *int64 `json:"cache_read_input_tokens"`
	CacheCreationInputTokens *int64 `json:"cache_creation_input_tokens"`
	CacheCreation            *struct {
		Ephemeral5m *int64 `json:"ephemeral_5m_input_tokens"`
		Ephemeral1h *int64 `json:"ephemeral_1h_input_tokens"`
	} `json:"cache_creation"`
	ServerToolUse *struct {
		WebSearchRequests *int64 `json:"web_search_requests"`
	} `json:"server_tool_use"`
	ServiceTier  *string `json:"service_tier"`
	InferenceGeo *string `json:"inference_geo"`
	Speed        *string `json:"speed"`
}

func (j jsonMessage) message() message {
	counted := func(n *int64) count {
		if n == nil {
			return count{}
		}
		return count{*n, true}
	}
	said := func(s *string) word {
		if s == nil {
			return word{}
		}
		return word{*s, true}
	}
	u := j.Usage
	m := message{id: j.ID, stopReason: j.StopReason, usage: usage{
		inputTokens: counted(u.InputTokens), outputTokens: counted(u.OutputTokens), cacheRead: counted(u.CacheReadInputTokens),
		cacheCreation: counted(u.CacheCreationInputTokens),
		serviceTier:   said(u.ServiceTier), inferenceGeo: said(u.InferenceGeo), speed: said(u.Speed),
	}}
	if c := u.CacheCreation; c != nil {
		m.usage.cacheWrite5m, m.usage.cacheWrite1h = counted(c.Ephemeral5m), counted(c.Ephemeral1h)
	}
	if t := u.ServerToolUse; t != nil {
		m.usage.webSearches = counted(t.WebSearchRequests)
	}
	return m
}

// folded finds names that encoding/json takes although they are written otherwise:
// with other letters, or with a letter of another alphabet that is the same folded.
var folded = regexp.MustCompile(`[A-Z\x{17f}\x{212a}]`)

// FuzzMessage holds what is read of an answer, of a message_start and of a
// message_delta against encoding/json.
func FuzzMessage(f *testing.F) {
	for _, seed := range []string{
		plainAnswer,
		`{"type":"message_start","message":{"id":"msg_1","usage":{"input_tokens":5,"output_tokens":1}}}`,
		`{"delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":20}}`,
		`{"usage":{"input_tokens":1,"cache_creation_input_tokens":9,"cache_creation":{"ephemeral_5m_input_tokens":4,"ephemeral_1h_input_tokens":5},"server_tool_use":{"web_search_requests":2}}}`,
		`{"usage":{"service_tier":"batch","inference_geo":"us","speed":"fast","cache_creation":null,"server_tool_use":null,"input_tokens":null}}`,
		`{"usage":{"input_tokens":"5"}}`, `{"usage":{"input_tokens":5.0}}`, `{"usage":{"input_tokens":-0}}`, `{"usage":{"input_tokens":1e3}}`,
		`{"usage":{"input_tokens":99999999999999999999}}`, `{"usage":[1]}`, `{"usage":null,"id":null}`, `{"id":5,"usage":{"input_tokens":1}}`,
		`{"id":"a","id":"b","usage":{"input_tokens":1},"usage":{"output_tokens":2}}`, `{"i\u0064":"\u00e9\n\ud800"}`,
		`{"usage":{"cache_creation":{"ephemeral_5m_input_tokens":4},"cache_creation":null}}`, `{"usage":{"speed":1}}`,
		`null`, `"x"`, `[]`, ` {} `, `{`, `{"usage":{"speed":"a","speed":null}}`, `{"delta":5}`, `{"message":null}`,
		`{"stop_reason":"tool_use","usage":{"service_tier":"standard"}}`, `{"id":"a"} x`, `{"id":"a"}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if folded.Match(text) {
			return // names may be meant that only encoding/json takes
		}
		for _, c := range []struct {
			what string
			read func([]byte) (message, bool)
			want func() (message, error)
		}{
			{"an answer", readMessage, func() (message, error) {
				var m jsonMessage
				err := json.Unmarshal(text, &m)
				return m.message(), err
			}},
			{"message_start", readStart, func() (message, error) {
				var m struct {
					Message jsonMessage `json:"message"`
				}
				err := json.Unmarshal(text, &m)
				return m.Message.message(), err
			}},
			{"message_delta", readDelta, func() (message, error) {
				var m struct {
					Delta struct {
						StopReason string `json:"stop_reason"`
					} `json:"delta"`
					Usage jsonUsage `json:"usage"`
				}
				err := json.Unmarshal(text, &m)
				return jsonMessage{StopReason: m.Delta.StopReason, Usage: m.Usage}.message(), err
			}},
		} {
			got, ok := c.read(text)
			want, err := c.want()
			if ok != (err == nil) || ok && !reflect.DeepEqual(got, want) {
				t.Errorf("%s: %s\nread %+v, %t\nwant %+v, %v", c.what, text, got, ok, want, err)
			}
		}
	})
}
