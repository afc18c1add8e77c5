package proxy

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

func TestScan(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", checked)
	tests := []struct {
		name, body string
		want       Request
		err        string
	}{
		{name: "the usual", body: `{"model":"a","max_tokens":5,"stream":true,"messages":[{"model":"b"}]}`, want: Request{Model: "a", Stream: true, MaxTokens: 5}},
		{name: "spaces everywhere", body: " {\n \"x\" : [ 1 , {\"model\":\"no\"} ] , \"model\" : \"a\" } ", want: Request{Model: "a"}},
		{name: "an escaped name is the same field", body: `{"mod\u0065l":"a"}`, want: Request{Model: "a"}},
		{name: "an escaped value", body: `{"model":"\u0061\"b"}`, want: Request{Model: `a"b`}},
		{name: "fast mode", body: `{"model":"a","speed":"fast"}`, want: Request{Model: "a", Fast: true}},
		{name: "a null stream", body: `{"model":"a","stream":null}`, want: Request{Model: "a"}},
		{name: "strings that look like structure", body: `{"s":"}\"{\\","model":"a"}`, want: Request{Model: "a"}},
		{name: "two models", body: `{"model":"a","mod\u0065l":"b"}`, err: "model: given twice"},
		{name: "no model", body: `{}`, err: "model: Field required"},
		{name: "a model that is no string", body: `{"model":7}`, err: "model: Input should be a valid string"},
		{name: "a list", body: `[]`, err: "the request body must be a JSON object"},
		{name: "not JSON", body: `{"model":`, err: "the request body is not valid JSON"},
		{name: "two objects", body: `{"model":"a"}{}`, err: "the request body is not valid JSON"},
		{name: "nothing", body: " ", err: "the request body is empty; a JSON object is needed"},
		{name: "two models beside a bad end", body: `{"model":"a","model":"b"`, err: "the request body is not valid JSON"},
		{name: "a list with a bad end", body: `[1,]`, err: "the request body is not valid JSON"},
		{name: "two models far behind", body: `{"model":"a","messages":[{"content":"` + long + `\"\\"}],"model":"b"}`, err: "model: given twice"},
		{name: "a model in a long text", body: `{"model":"a","system":"` + long + `\",\"model\":\"b"}`, want: Request{Model: "a"}},
		{name: "a model behind what only looks escaped", body: `{"model":"a","system":"` + long + `\\","model":"b"}`, err: "model: given twice"},
		{name: "a long text without an end", body: `{"model":"a","system":"` + long + `\"}`, err: "the request body is not valid JSON"},
		{name: "a long text that ends in half an escape", body: `{"model":"a","system":"` + long + `\u12","model":"b"}`, err: "the request body is not valid JSON"},
		{name: "a quote in half an escape", body: `{"model":"a","system":"` + long + `\u123\","model":"b"}`, err: "the request body is not valid JSON"},
		{name: "a name with a bad escape", body: `{"model":"a","mod\el":"b"}`, err: "the request body is not valid JSON"},
		{name: "a control character in a short text", body: `{"model":"a","system":"` + "\n" + `"}`, err: "the request body is not valid JSON"},
		{name: "a bad escape in a model", body: `{"model":"` + long + `\x"}`, err: "the request body is not valid JSON"},
		{name: "a NUL in a long model", body: `{"model":"` + long + long + "\x00" + `"}`, err: "the request body is not valid JSON"},
		{name: "a control character in a long user", body: `{"model":"a","metadata":{"user_id":"` + long + long + "\n" + `"}}`, err: "the request body is not valid JSON"},
		{name: "half a token", body: `{"model":"a","max_tokens":1.5}`, err: "max_tokens: Input should be a positive integer"},
		{name: "no tokens", body: `{"model":"a","max_tokens":0}`, err: "max_tokens: Input should be a positive integer"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := Scan(Messages, []byte(tt.body))
			message := ""
			if err != nil {
				message = err.Message
			}
			got.modelAt, got.weight, got.marks = span{}, weight{}, marks{}
			if message != tt.err || err == nil && got != tt.want {
				t.Errorf("Scan(%s) = %+v, %q, want %+v, %q", tt.body, got, message, tt.want, tt.err)
			}
		})
	}
}

func TestForUpstreamMovesNothingElse(t *testing.T) {
	t.Parallel()
	body := []byte(`{"big":12345678901234567890, "model" : "anthropic/x","é":"\ud83d"}`)
	before := bytes.Clone(body)
	r, err := Scan(Messages, body)
	if err != nil {
		t.Fatal(err)
	}
	sent := r.ForUpstream(body, "x")
	want := `{"big":12345678901234567890, "model" : "x","é":"\ud83d"}`
	if got := string(sent.AppendTo(nil)); got != want || sent.Len() != len(want) {
		t.Errorf("got %s, %d bytes, want %s", got, sent.Len(), want)
	}
	if !bytes.Equal(body, before) {
		t.Error("the client's body was changed")
	}
	pieces := sent.Pieces([]byte("head"))
	if string(bytes.Join(pieces, nil)) != "head"+want || &pieces[1][0] != &body[0] {
		t.Errorf("the pieces are %q, want the client's body among them", pieces)
	}
}

func FuzzScan(f *testing.F) {
	for _, s := range []string{`{"model":"a"}`, `{"a":[[{"b":"\\"}]],"model":"x","max_tokens":1}`, `{"model":"a","model":"b"}`, `[`, `{"a":1e5}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := Scan(Messages, body)
		if err != nil {
			return
		}
		body = sane(body)
		var fields map[string]json.RawMessage
		if e := json.Unmarshal(body, &fields); e != nil {
			t.Fatalf("Scan took what is no object: %s", body)
		}
		var model string
		if e := json.Unmarshal(fields["model"], &model); e != nil || model != r.Model {
			t.Errorf("Scan says model %q, the decoder %q", r.Model, model)
		}
		changed := r.ForUpstream(body, r.Model+"x").AppendTo(nil)
		if e := json.Unmarshal(changed, &fields); e != nil || !json.Valid(changed) {
			t.Errorf("ForUpstream broke the body: %s", changed)
		}
	})
}
