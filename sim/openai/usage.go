package openai

// Usage is the token count of one answer. Cached and written tokens are part of
// the input, reasoning is part of the output, as both APIs report them.
type Usage struct {
	InputTokens      int64  `json:"input_tokens"`
	CachedTokens     int64  `json:"cached_tokens"`
	CacheWriteTokens int64  `json:"cache_write_tokens"`
	OutputTokens     int64  `json:"output_tokens"`
	ReasoningTokens  int64  `json:"reasoning_tokens"`
	ServiceTier      string `json:"service_tier"`
}

// chatUsage is the usage of a chat completion.
type chatUsage struct {
	PromptTokens     int64             `json:"prompt_tokens"`
	CompletionTokens int64             `json:"completion_tokens"`
	TotalTokens      int64             `json:"total_tokens"`
	PromptDetails    promptDetails     `json:"prompt_tokens_details"`
	OutputDetails    completionDetails `json:"completion_tokens_details"`
}

type promptDetails struct {
	CachedTokens     int64 `json:"cached_tokens"`
	AudioTokens      int64 `json:"audio_tokens"`
	CacheWriteTokens int64 `json:"cache_write_tokens"`
}

type completionDetails struct {
	ReasoningTokens          int64 `json:"reasoning_tokens"`
	AudioTokens              int64 `json:"audio_tokens"`
	AcceptedPredictionTokens int64 `json:"accepted_prediction_tokens"`
	RejectedPredictionTokens int64 `json:"rejected_prediction_tokens"`
}

func (u Usage) chat() *chatUsage {
	return &chatUsage{
		PromptTokens: u.InputTokens, CompletionTokens: u.OutputTokens, TotalTokens: u.InputTokens + u.OutputTokens,
		PromptDetails: promptDetails{CachedTokens: u.CachedTokens, CacheWriteTokens: u.CacheWriteTokens},
		OutputDetails: completionDetails{ReasoningTokens: u.ReasoningTokens},
	}
}

// responseUsage is the usage of a response.
type responseUsage struct {
	InputTokens   int64         `json:"input_tokens"`
	InputDetails  inputDetails  `json:"input_tokens_details"`
	OutputTokens  int64         `json:"output_tokens"`
	OutputDetails outputDetails `json:"output_tokens_details"`
	TotalTokens   int64         `json:"total_tokens"`
}

type inputDetails struct {
	CachedTokens     int64 `json:"cached_tokens"`
	CacheWriteTokens int64 `json:"cache_write_tokens"`
}

type outputDetails struct {
	ReasoningTokens int64 `json:"reasoning_tokens"`
}

func (u Usage) response() *responseUsage {
	return &responseUsage{
		InputTokens: u.InputTokens, InputDetails: inputDetails{u.CachedTokens, u.CacheWriteTokens},
		OutputTokens: u.OutputTokens, OutputDetails: outputDetails{u.ReasoningTokens},
		TotalTokens: u.InputTokens + u.OutputTokens,
	}
}
