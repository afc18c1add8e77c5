package openai_test

import (
	"strings"
	"testing"

	"github.com/proliferate-ai/llm-proxy/sim/openai"
)

// as asks for a response with a key of its own.
func (b bundle) as(t *testing.T, key, body string) (int, response, []byte) {
	t.Helper()
	resp, answer, err := b.do(t, b.request(t, "POST", responsesPath, body, map[string]string{"authorization": "Bearer " + key}))
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != 200 {
		return resp.StatusCode, response{}, answer
	}
	if list := events(t, answer); len(list) > 0 {
		return 200, decode[struct{ Response response }](t, []byte(list[len(list)-1].data)).Response, answer
	}
	return 200, decode[response](t, answer), answer
}

func TestResponsesBelongToTheirCredential(t *testing.T) {
	t.Parallel()
	b := serve(t, openai.Options{})
	for _, tt := range []struct {
		name, key, extra string
		want             int
	}{
		{"the same credential", "key-a", "", 200},
		{"a stream", "key-a", streaming, 200},
		{"stored explicitly", "key-a", `,"store":true`, 200},
		{"another credential", "key-b", "", 400},
		{"not stored", "key-a", `,"store":false`, 400},
		{"a stream that is not stored", "key-a", `,"store":false` + streaming, 400},
	} {
		_, first, _ := b.as(t, "key-a", ask(responsesPath, "gpt-5", "first", tt.extra))
		status, _, body := b.as(t, tt.key, ask(responsesPath, "gpt-5", "second", `,"previous_response_id":"`+first.ID+`"`))
		if status != tt.want {
			t.Errorf("%s = %d, want %d: %s", tt.name, status, tt.want, body)
		}
		if status == 400 && value(decode[apiError](t, body).Error.Code) != "previous_response_not_found" {
			t.Errorf("%s: %s, want previous_response_not_found", tt.name, body)
		}
	}
}

func TestAFailedResponseIsNotKept(t *testing.T) {
	t.Parallel()
	b := start(t, openai.Options{})
	_, failed, _ := b.as(t, realKey, ask(responsesPath, "gpt-5", "[[sim:fail=after:1]]", streaming))
	if failed.Status != "failed" || failed.Error.Code != "server_error" || failed.Usage != nil {
		t.Errorf("response = %+v, want failed without usage", failed)
	}
	if status, _, _ := b.as(t, realKey, ask(responsesPath, "gpt-5", "x", `,"previous_response_id":"`+failed.ID+`"`)); status != 400 {
		t.Errorf("the next = %d, want 400", status)
	}
}

// TestAConversationIsCountedHoweverItIsContinued compares a turn that names the
// previous response with one that repeats it and one that refers to its items.
func TestAConversationIsCountedHoweverItIsContinued(t *testing.T) {
	t.Parallel()
	b := start(t, openai.Options{})
	opening := strings.Repeat("word", 64)
	_, first, _ := b.as(t, realKey, ask(responsesPath, "gpt-5", opening, responseTool))
	call := first.Output[1]
	result := `{"type":"function_call_output","call_id":"` + call.CallID + `","output":"done"}`
	repeated := `{"role":"user","content":"` + opening + `"}`
	reasoning := `{"type":"reasoning","id":"` + first.Output[0].ID + `","summary":[]}`
	made := `{"type":"function_call","call_id":"` + call.CallID + `","name":"bash","arguments":"{\"command\":\"sample\",\"mode\":\"fast\",\"timeout\":1}"}`
	var inputs []int64
	for _, body := range []string{
		`"input":[` + result + `],"previous_response_id":"` + first.ID + `"`,
		`"input":[` + repeated + `,` + reasoning + `,` + made + `,` + result + `]`,
		`"input":[` + repeated + `,{"type":"item_reference","id":"` + first.Output[0].ID + `"},{"type":"item_reference","id":"` + call.ID + `"},` + result + `]`,
	} {
		status, got, raw := b.as(t, realKey, `{"model":"gpt-5",`+body+responseTool+`}`)
		if status != 200 || got.Output[len(got.Output)-1].Type != "message" {
			t.Fatalf("answer to the result = %d %s, want text", status, raw)
		}
		if got.Usage.Details.Cached < 64 {
			t.Errorf("cached tokens = %d, want those of the first turn", got.Usage.Details.Cached)
		}
		inputs = append(inputs, got.Usage.Input)
	}
	if inputs[0] <= first.Usage.Input || inputs[0] != inputs[1] || inputs[0] != inputs[2] {
		t.Errorf("input tokens = %v after %d, want more, and all the same", inputs, first.Usage.Input)
	}
}

func TestReasoningIsEncryptedOnRequest(t *testing.T) {
	t.Parallel()
	b := start(t, openai.Options{})
	for extra, want := range map[string]bool{"": false, `,"include":["reasoning.encrypted_content"]`: true} {
		_, got, _ := b.as(t, realKey, ask(responsesPath, "gpt-5", "hi", extra))
		if got.Output[0].Type != "reasoning" || (got.Output[0].Encrypted != "") != want {
			t.Errorf("%q: output = %+v, want encrypted reasoning: %v", extra, got.Output, want)
		}
	}
}
