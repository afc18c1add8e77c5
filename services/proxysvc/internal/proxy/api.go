package proxy

import (
	"bytes"
	"encoding/json"

	"github.com/proliferate-ai/llm-proxy/kit/sse"
)

// API is the shape of a call: whose routes it came by, and so whose answer and
// whose errors its client understands.
type API int

// The shapes that are passed on.
const (
	Messages        API = iota // Anthropic's POST /v1/messages
	ChatCompletions            // OpenAI's POST /v1/chat/completions
	Responses                  // OpenAI's POST /v1/responses
)

// Path is the route at the provider.
func (a API) Path() string {
	switch a {
	case ChatCompletions:
		return "/v1/chat/completions"
	case Responses:
		return "/v1/responses"
	default:
		return "/v1/messages"
	}
}

// Provider is whose deployments serve it.
func (a API) Provider() Provider {
	if a == Messages {
		return Anthropic
	}
	return OpenAI
}

func (a API) newMeter(inputGuess int64, hideUsage bool) meter {
	switch a {
	case ChatCompletions:
		return &chatMeter{answer: answer{inputGuess: inputGuess}, hideUsage: hideUsage}
	case Responses:
		return &responsesMeter{answer: answer{inputGuess: inputGuess}}
	default:
		return &messagesMeter{answer: answer{inputGuess: inputGuess}}
	}
}

// ErrorBody is an error of ours as the API's clients read it. Anthropic's:
// {"type":"error","error":{"type":"…","message":"…"},"request_id":"…"}, OpenAI's:
// {"error":{"message":"…","type":"…","param":null,"code":"…"}}.
func (a API) ErrorBody(e *Error, requestID string) []byte {
	if a == Messages {
		return e.Body(requestID)
	}
	return encode(struct {
		Error openAIError `json:"error"`
	}{openAIErrorOf(e)})
}

// errorEvent ends a stream with an error of ours.
func (a API) errorEvent(e *Error, requestID string) []byte {
	var event bytes.Buffer
	name, data := "error", a.ErrorBody(e, requestID)
	switch a {
	case ChatCompletions:
		name = "" // a stream of nameless events
	case Responses:
		of := openAIErrorOf(e)
		data = encode(struct {
			Type    string  `json:"type"`
			Code    string  `json:"code"`
			Message string  `json:"message"`
			Param   *string `json:"param"`
		}{"error", of.Code, of.Message, nil})
	}
	if err := sse.Write(&event, name, data); err != nil {
		return nil // cannot happen: the names hold no line break
	}
	return event.Bytes()
}

type openAIError struct {
	Message string  `json:"message"`
	Type    string  `json:"type"`
	Param   *string `json:"param"`
	Code    string  `json:"code"`
}

// openAIErrorOf gives an error the type and code that OpenAI's own have.
func openAIErrorOf(e *Error) openAIError {
	out := openAIError{Message: e.Message, Type: "invalid_request_error", Code: e.Type}
	switch {
	case e.Status == 401:
		out.Code = "invalid_api_key"
	case e.Status == 402:
		out.Type, out.Code = "insufficient_quota", "insufficient_quota"
	case e.Code == threadNotFound:
		out.Code = "previous_response_not_found"
	case e.Status == 404 && e.Type == "not_found_error":
		out.Code = "model_not_found"
	case e.Status == 429:
		out.Type, out.Code = "rate_limit_exceeded", "rate_limit_exceeded"
	case e.Status >= 500:
		out.Type, out.Code = "server_error", "server_error"
	}
	return out
}

func encode(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		return []byte(`{"error":{"message":"internal error","type":"server_error","param":null,"code":"server_error"}}`)
	}
	return text
}
