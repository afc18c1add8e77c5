package openai

import (
	"strings"
	"unicode/utf8"
)

// answer is all that will be said, made before any of it is sent: the tokens of
// the reasoning, then text, then a tool call. Any of them may be missing.
type answer struct {
	reasoning int64
	text      []piece
	call      *toolCall
	truncated bool
}

// toolCall is a call of a client's tool. Responses have an id for the item too.
type toolCall struct {
	id, itemID, name string
	pieces           []piece // the arguments
}

// piece is what one delta brings.
type piece struct {
	text   string
	tokens int64
}

const (
	defaultText      = "This is a simulated answer. Every token of it was counted, and none of it was meant."
	defaultReasoning = 16
	pieceBytes       = 16
	fillerTokens     = 8
	filler           = "tok tok tok tok tok tok tok tok " // four bytes a token
)

// answer makes the answer to t.
func (t *turn) answer() answer {
	a := answer{reasoning: t.reasoning()}
	if call, ok := t.chosenTool(); ok {
		a.call = &call
	}
	a.text = cut(t.text(a.call != nil))
	if n := t.script.outputTokens; n > 0 {
		a.resize(n)
	}
	if t.limit > 0 {
		a.truncated = a.truncate(t.limit)
	}
	return a
}

// reasoning leaves half of what the script wants to be said.
func (t *turn) reasoning() int64 {
	switch sc := t.script; {
	case sc.reasoningTokens >= 0:
		return sc.reasoningTokens
	case !t.model.reasons || t.effort == "none":
		return 0
	case sc.outputTokens > 0:
		return min(defaultReasoning, sc.outputTokens/2)
	}
	return defaultReasoning
}

// text is what the answer says in words; before a tool call only if asked for.
func (t *turn) text(callsTool bool) string {
	switch {
	case t.script.say != "":
		return t.script.say
	case callsTool || t.script.outputTokens > 0:
		return ""
	}
	return defaultText
}

// cut splits text into the pieces that a stream sends, between characters.
func cut(text string) []piece {
	var pieces []piece
	for text != "" {
		n := runeBoundary(text, pieceBytes)
		pieces = append(pieces, piece{text[:n], textTokens(n)})
		text = text[n:]
	}
	return pieces
}

// runeBoundary returns the end of the last character that begins within the
// first n bytes of text, at least one character.
func runeBoundary(text string, n int) int {
	if n >= len(text) {
		return len(text)
	}
	for n > 0 && !utf8.RuneStart(text[n]) {
		n--
	}
	if n == 0 {
		_, n = utf8.DecodeRuneInString(text)
	}
	return n
}

// resize makes the answer exactly n tokens long.
func (a *answer) resize(n int64) {
	missing := n - a.tokens()
	for ; missing > 0; missing -= fillerTokens {
		tokens := min(missing, fillerTokens)
		a.text = append(a.text, piece{filler[:tokenBytes*tokens], tokens})
	}
	a.truncate(n)
}

// truncate drops what is beyond n tokens and reports whether anything was.
func (a *answer) truncate(n int64) bool {
	if a.tokens() <= n {
		return false
	}
	a.reasoning = min(a.reasoning, n)
	n -= a.reasoning
	a.text, n = firstTokens(a.text, n)
	if a.call != nil {
		a.call.pieces, _ = firstTokens(a.call.pieces, n)
		if len(a.call.pieces) == 0 {
			a.call = nil
		}
	}
	return true
}

// firstTokens returns the first n tokens of pieces and how many of n are left.
func firstTokens(pieces []piece, n int64) (first []piece, left int64) {
	for _, p := range pieces {
		if n == 0 {
			break
		}
		if p.tokens > n {
			p.text = p.text[:runeBoundary(p.text, int(n*tokenBytes))]
			p.tokens = n
		}
		first = append(first, p)
		n -= p.tokens
	}
	return first, n
}

func (a *answer) tokens() int64 {
	sum := a.reasoning + pieceTokens(a.text)
	if a.call != nil {
		sum += pieceTokens(a.call.pieces)
	}
	return sum
}

func pieceTokens(pieces []piece) int64 {
	var sum int64
	for _, p := range pieces {
		sum += p.tokens
	}
	return sum
}

func joined(pieces []piece) string {
	var text strings.Builder
	for _, p := range pieces {
		text.WriteString(p.text)
	}
	return text.String()
}
