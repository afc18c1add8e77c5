package openai

import "encoding/json"

// responseBody is a response, finished or not.
type responseBody struct {
	ID                 string             `json:"id"`
	Object             string             `json:"object"`
	CreatedAt          int64              `json:"created_at"`
	Status             string             `json:"status"`
	Background         bool               `json:"background"`
	CompletedAt        *int64             `json:"completed_at"`
	Error              *responseError     `json:"error"`
	IncompleteDetails  *incompleteDetails `json:"incomplete_details"`
	Instructions       json.RawMessage    `json:"instructions"`
	MaxOutputTokens    json.RawMessage    `json:"max_output_tokens"`
	MaxToolCalls       json.RawMessage    `json:"max_tool_calls"`
	Model              string             `json:"model"`
	Output             []any              `json:"output"`
	ParallelToolCalls  json.RawMessage    `json:"parallel_tool_calls"`
	PreviousResponseID json.RawMessage    `json:"previous_response_id"`
	PromptCacheKey     json.RawMessage    `json:"prompt_cache_key"`
	Reasoning          json.RawMessage    `json:"reasoning"`
	SafetyIdentifier   json.RawMessage    `json:"safety_identifier"`
	ServiceTier        string             `json:"service_tier"`
	Store              json.RawMessage    `json:"store"`
	Temperature        json.RawMessage    `json:"temperature"`
	Text               json.RawMessage    `json:"text"`
	ToolChoice         json.RawMessage    `json:"tool_choice"`
	Tools              json.RawMessage    `json:"tools"`
	TopLogprobs        json.RawMessage    `json:"top_logprobs"`
	TopP               json.RawMessage    `json:"top_p"`
	Truncation         json.RawMessage    `json:"truncation"`
	Usage              *responseUsage     `json:"usage"`
	User               json.RawMessage    `json:"user"`
	Metadata           json.RawMessage    `json:"metadata"`
}

type responseError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

type incompleteDetails struct {
	Reason string `json:"reason"`
}

// Items of an output.
type (
	reasoningItem struct {
		ID               string   `json:"id"`
		Type             string   `json:"type"`
		EncryptedContent string   `json:"encrypted_content,omitempty"`
		Summary          []string `json:"summary"`
	}
	messageItem struct {
		ID      string       `json:"id"`
		Type    string       `json:"type"`
		Status  string       `json:"status"`
		Content []outputText `json:"content"`
		Role    string       `json:"role"`
	}
	outputText struct {
		Type        string   `json:"type"`
		Annotations []string `json:"annotations"`
		Logprobs    []string `json:"logprobs"`
		Text        string   `json:"text"`
	}
	callItem struct {
		ID        string `json:"id"`
		Type      string `json:"type"`
		Status    string `json:"status"`
		Arguments string `json:"arguments"`
		CallID    string `json:"call_id"`
		Name      string `json:"name"`
	}
)

func (r *reply) reasoningItem() reasoningItem {
	item := reasoningItem{ID: r.reasoningID, Type: "reasoning", Summary: []string{}}
	if r.encrypted {
		item.EncryptedContent = "gAAAAABsimulated" + r.reasoningID
	}
	return item
}

func (r *reply) messageItem(status, text string) messageItem {
	return messageItem{ID: r.messageID, Type: "message", Status: status, Role: "assistant", Content: []outputText{textPart(text)}}
}

func textPart(text string) outputText {
	return outputText{Type: "output_text", Annotations: []string{}, Logprobs: []string{}, Text: text}
}

func (t *toolCall) item(status, arguments string) callItem {
	return callItem{ID: t.itemID, Type: "function_call", Status: status, Arguments: arguments, CallID: t.id, Name: t.name}
}

func itemID(item any) string {
	switch i := item.(type) {
	case reasoningItem:
		return i.ID
	case messageItem:
		return i.ID
	case callItem:
		return i.ID
	}
	return ""
}

// eventHead is what every event of a response begins with.
type eventHead struct {
	Type           string `json:"type"`
	SequenceNumber int64  `json:"sequence_number"`
}

// Events of a stream.
type (
	lifecycleEvent struct {
		eventHead
		Response responseBody `json:"response"`
	}
	itemEvent struct {
		eventHead
		OutputIndex int `json:"output_index"`
		Item        any `json:"item"`
	}
	// place is where in the output an event of a text belongs.
	place struct {
		ItemID       string `json:"item_id"`
		OutputIndex  int    `json:"output_index"`
		ContentIndex int    `json:"content_index"`
	}
	partEvent struct {
		eventHead
		place
		Part outputText `json:"part"`
	}
	textDeltaEvent struct {
		eventHead
		place
		Delta       string   `json:"delta"`
		Logprobs    []string `json:"logprobs"`
		Obfuscation string   `json:"obfuscation,omitempty"`
	}
	textDoneEvent struct {
		eventHead
		place
		Text     string   `json:"text"`
		Logprobs []string `json:"logprobs"`
	}
	argumentsDeltaEvent struct {
		eventHead
		ItemID      string `json:"item_id"`
		OutputIndex int    `json:"output_index"`
		Delta       string `json:"delta"`
		Obfuscation string `json:"obfuscation,omitempty"`
	}
	argumentsDoneEvent struct {
		eventHead
		ItemID      string `json:"item_id"`
		OutputIndex int    `json:"output_index"`
		Arguments   string `json:"arguments"`
		Name        string `json:"name"`
	}
	// errorEvent has the error in an object, as the server sends it and the SDKs
	// want it, although the reference shows its fields at the top.
	errorEvent struct {
		eventHead
		Error errorDetail `json:"error"`
	}
)
