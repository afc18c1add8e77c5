package proxy

import (
	"bytes"
	"encoding/json"
	"testing"
)

func TestScan(t *testing.T) {
	t.Parallel()
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
			got.modelAt = span{}
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
	if got, want := string(r.ForUpstream(body, "x")), `{"big":12345678901234567890, "model" : "x","é":"\ud83d"}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if !bytes.Equal(body, before) {
		t.Error("the client's body was changed")
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
		var fields map[string]json.RawMessage
		if e := json.Unmarshal(body, &fields); e != nil {
			t.Fatalf("Scan took what is no object: %s", body)
		}
		var model string
		if e := json.Unmarshal(fields["model"], &model); e != nil || model != r.Model {
			t.Errorf("Scan says model %q, the decoder %q", r.Model, model)
		}
		changed := r.ForUpstream(body, r.Model+"x")
		if e := json.Unmarshal(changed, &fields); e != nil || !json.Valid(changed) {
			t.Errorf("ForUpstream broke the body: %s", changed)
		}
	})
}
