package proxy

import (
	"bytes"

	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/pricing"
)

// The worst case of a prompt is told from its bytes, without a tokenizer. Each
// number is more than what tokenizers are known to make of such content.
const (
	// Prose has four to five bytes a token, code three, other alphabets two and
	// more; the tokenizers since Opus 4.7 make a third more tokens of the same.
	bytesPerPromptToken = 2
	// An image has at most 4,784 tokens, however many bytes.
	tokensPerImage = 5_000
	// A page of a document has up to 3,000 tokens and hardly less than two
	// kilobytes.
	bytesPerDocumentToken = 1
	// What the provider adds to a prompt by itself: its own instructions for tools.
	tokensAdded = 1_000
	// Each search costs by itself and brings pages into the prompt.
	tokensPerSearch = 20_000
	defaultSearches = 10
	// No model takes a longer prompt; a longer one is refused by the provider.
	longestPrompt = 1_050_000
)

// bound is the most that a request can use, told from its bytes.
func bound(req Request) pricing.Bound {
	b := pricing.Bound{
		PromptTokens: req.weight.promptTokens() + tokensAdded,
		CacheWrite5m: req.marks.caches,
		CacheWrite1h: req.marks.caches && req.marks.hour,
		MaxTokens:    req.MaxTokens,
		Answers:      req.Answers,
		Fast:         req.Fast,
		ServiceTier:  req.ServiceTier,
	}
	if req.marks.searches {
		b.WebSearches = defaultSearches
		b.PromptTokens += defaultSearches * tokensPerSearch
	}
	b.PromptTokens = min(b.PromptTokens, longestPrompt)
	return b
}

// marks say whether a body has strings, wherever, that make a request dearer:
// "cache_control", one that begins with web_search_, and "1h".
type marks struct{ caches, searches, hour bool }

// note looks at a string.
func (m *marks) note(text []byte) {
	switch {
	case len(text) == len("cache_control") && string(text) == "cache_control":
		m.caches = true
	case len(text) >= len("web_search_") && string(text[:len("web_search_")]) == "web_search_":
		m.searches = true
	case len(text) == len("1h") && string(text) == "1h":
		m.hour = true
	}
}

// weight is what the prompt of a body can have: its text by bytes, its images and
// documents by what they can be. Only blocks that the provider takes for such count as
// such: the same JSON in a tool's input is text.
type weight struct {
	text   int64 // bytes of what is text
	tokens int64 // of what is not
}

func (t weight) promptTokens() int64 {
	return t.tokens + (t.text+bytesPerPromptToken-1)/bytesPerPromptToken
}

// deepestBlock is how deep images and documents stand: in a message, in a tool's
// result, in a search result there. What is deeper counts as text.
const deepestBlock = 3

// content reads a value, and weighs it if it is a list of messages or blocks. It stands
// in so many values, and so many blocks.
func (w *walk) content(i, depth, blocks int, sum *weight) int {
	if i >= len(w.b) || w.b[i] != '[' || blocks > deepestBlock {
		return w.value(i, depth)
	}
	return w.array(i, depth, func(i int) int {
		if i >= len(w.b) || w.b[i] != '{' {
			return w.value(i, depth+1)
		}
		return w.block(i, depth+1, blocks, sum)
	})
}

// block reads a message or a block, and weighs it.
func (w *walk) block(i, depth, blocks int, sum *weight) int {
	var kind, source span
	var inner weight // of its content
	end := w.object(i, depth, func(quoted span, i int) int {
		name := fieldName(w.b[quoted.from:quoted.to])
		switch string(name) {
		case "content", "output":
			inner = weight{}
			return w.content(i, depth+1, blocks+1, &inner)
		}
		end := w.value(i, depth+1)
		switch string(name) {
		case "type":
			kind = span{i, end}
		case "source", "file":
			source = span{i, end}
		}
		return end
	})
	if end > 0 {
		sum.block(w.b[i:end], w.b[kind.from:kind.to], w.b[source.from:source.to], inner)
	}
	return end
}

// block adds a block of a kind, which is a JSON value.
func (t *weight) block(block, kind, source []byte, inner weight) {
	if len(kind) > 0 && kind[0] == '"' {
		kind = fieldName(kind)
	}
	switch string(kind) {
	case "image", "image_url", "input_image":
		inner = weight{text: -int64(len(block)), tokens: tokensPerImage}
	case "document", "file", "input_file":
		if !bytes.Contains(source, []byte(`"data`)) && !bytes.Contains(block, []byte(`"file_data"`)) && !bytes.Contains(source, []byte(`"content"`)) {
			inner = weight{tokens: longestPrompt} // it is somewhere else
		} else {
			inner = weight{text: -int64(len(block)), tokens: int64(len(block)) / bytesPerDocumentToken}
		}
	}
	t.text += inner.text
	t.tokens += inner.tokens
}
