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
func bound(req Request, body []byte) pricing.Bound {
	caches, searches := marks(body)
	b := pricing.Bound{
		PromptTokens: promptTokens(body) + tokensAdded,
		CacheWrite5m: caches,
		CacheWrite1h: caches && bytes.Contains(body, []byte(`"1h"`)),
		MaxTokens:    req.MaxTokens,
		Answers:      req.Answers,
		Fast:         req.Fast,
		ServiceTier:  req.ServiceTier,
	}
	if searches {
		b.WebSearches = defaultSearches
		b.PromptTokens += defaultSearches * tokensPerSearch
	}
	b.PromptTokens = min(b.PromptTokens, longestPrompt)
	return b
}

// marks says whether a body has "cache_control", and whether it has a string that
// begins with web_search_, wherever that is. It looks at underscores only, which in
// prose takes a fortieth of the time of a search for the whole words.
func marks(body []byte) (caches, searches bool) {
	for at := 0; !caches || !searches; at++ {
		next := bytes.IndexByte(body[at:], '_')
		if next < 0 {
			return caches, searches
		}
		at += next
		before, after := body[:at], body[at+1:]
		caches = caches || bytes.HasSuffix(before, []byte(`"cache`)) && bytes.HasPrefix(after, []byte(`control"`))
		searches = searches || bytes.HasSuffix(before, []byte(`"web`)) && bytes.HasPrefix(after, []byte(`search_`))
	}
	return caches, searches
}

// promptTokens bounds the tokens of a body: its text by bytes, its images and
// documents by what they can be. Only blocks that the provider takes for such
// count as such: the same JSON in a tool's input is text.
func promptTokens(body []byte) int64 {
	w := weigher{text: int64(len(body))}
	_ = eachField(body, func(name []byte, at span) *Error { // the callback never fails
		switch string(name) {
		case "messages", "input", "system":
			w.content(body[at.from:at.to], 0)
		}
		return nil
	})
	return w.tokens + (w.text+bytesPerPromptToken-1)/bytesPerPromptToken
}

// deepestBlock is how deep images and documents stand: in a message, in a tool's
// result, in a search result there. What is deeper counts as text.
const deepestBlock = 3

// weigher sums up what a prompt can have.
type weigher struct {
	text   int64 // bytes of what is text
	tokens int64 // of what is not
}

// content weighs a list of messages or blocks.
func (w *weigher) content(list []byte, depth int) {
	if list[0] != '[' || depth > deepestBlock {
		return
	}
	eachElement(list, func(e []byte) {
		if e[0] == '{' {
			w.block(e, depth)
		}
	})
}

// block weighs a message or a block.
func (w *weigher) block(block []byte, depth int) {
	var kind string
	var content, source []byte
	_ = eachField(block, func(name []byte, at span) *Error { // the callback never fails
		value := block[at.from:at.to]
		switch string(name) {
		case "type":
			readText(value, &kind)
		case "content", "output":
			content = value
		case "source", "file":
			source = value
		}
		return nil
	})
	switch kind {
	case "image", "image_url", "input_image":
		w.text -= int64(len(block))
		w.tokens += tokensPerImage
	case "document", "file", "input_file":
		if !bytes.Contains(source, []byte(`"data`)) && !bytes.Contains(block, []byte(`"file_data"`)) && !bytes.Contains(source, []byte(`"content"`)) {
			w.tokens += longestPrompt // it is somewhere else
			return
		}
		w.text -= int64(len(block))
		w.tokens += int64(len(block)) / bytesPerDocumentToken
	default:
		if content != nil {
			w.content(content, depth+1)
		}
	}
}

// eachElement calls f for every element of a valid JSON array.
func eachElement(list []byte, f func(e []byte)) {
	for i := skipSpace(list, 1); list[i] != ']'; {
		end := skipValue(list, i)
		f(list[i:end])
		if i = skipSpace(list, end); list[i] == ',' {
			i = skipSpace(list, i+1)
		}
	}
}
