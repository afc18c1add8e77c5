package anthropic

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// answer is all that will be said, made before any of it is sent.
type answer struct {
	id         string
	model      string
	blocks     []answerBlock
	stopReason string
	start      Usage // as message_start reports it
	searches   int64 // web searches that the answer makes
}

// answerBlock is one content block, in the pieces in which it is generated.
type answerBlock struct {
	kind   string // text, thinking, tool_use, server_tool_use or web_search_tool_result
	id     string // of tool blocks
	name   string // of tool blocks
	pieces []piece
}

// piece is what one delta brings.
type piece struct {
	text      string
	signature bool // a signature_delta, which costs nothing
	tokens    int64
}

const (
	defaultText     = "This is a simulated answer. Every token of it was counted, and none of it was meant."
	defaultThinking = "The user wants an answer. I shall give the one that I always give."
	signature       = "EqQBCkYIBxgCKkDsimulatedsignature+/0123456789abcdefghijklmnopqrstuvwxyz=="
	searchTokens    = 500 // input tokens that one search's results bring
	pieceBytes      = 16
	fillerTokens    = 8
	filler          = "tok tok tok tok tok tok tok tok " // four bytes a token
)

// answerTo makes the answer to p, whose prompt uses start.
func answerTo(p prompt, start Usage) answer {
	a := answer{id: newID("msg_"), model: p.model.id, start: start}
	if p.Thinking != nil && (p.Thinking.Type == "enabled" || p.Thinking.Type == "adaptive") {
		thinking := answerBlock{kind: "thinking", pieces: append(cut(defaultThinking), piece{text: signature, signature: true})}
		a.blocks = append(a.blocks, thinking)
	}
	if p.searches() > 0 {
		a.searches = p.searches()
		id := newID("srvtoolu_")
		a.blocks = append(a.blocks,
			answerBlock{kind: "server_tool_use", id: id, name: "web_search", pieces: jsonPieces(`{"query":"simulated"}`)},
			answerBlock{kind: "web_search_tool_result", id: id})
	}
	use, usesTool := p.chosenTool()
	a.stopReason = "end_turn"
	if text := p.script.text(usesTool); text != "" {
		a.blocks = append(a.blocks, answerBlock{kind: "text", pieces: cut(text)})
	}
	if usesTool {
		a.stopReason = "tool_use"
		a.blocks = append(a.blocks, answerBlock{kind: "tool_use", id: newID("toolu_"), name: use.name, pieces: jsonPieces(string(use.input))})
	}
	if p.script.outputTokens > 0 {
		a.resize(p.script.outputTokens)
	}
	if a.truncate(*p.MaxTokens) {
		a.stopReason = "max_tokens"
	}
	if p.script.huge > 0 {
		a.addHuge(p.script.huge, *p.MaxTokens)
	}
	if !slices.ContainsFunc(a.blocks, func(b answerBlock) bool { return b.kind == "web_search_tool_result" }) {
		a.searches = 0 // cut before its result
	}
	return a
}

// text is what the answer says in words; before a tool call only if asked for.
func (sc *script) text(usesTool bool) string {
	switch {
	case sc.say != "":
		return sc.say
	case usesTool:
		return ""
	case sc.outputTokens > 0:
		return filler[:4]
	}
	return defaultText
}

// cut splits text into the pieces that a stream sends, between characters.
func cut(text string) []piece {
	var pieces []piece
	for text != "" {
		n := runeBoundary(text, pieceBytes)
		pieces = append(pieces, piece{text: text[:n], tokens: textTokens(n)})
		text = text[n:]
	}
	return pieces
}

// jsonPieces is cut for tool inputs, which begin with an empty delta, as at the
// real API.
func jsonPieces(text string) []piece { return append([]piece{{}}, cut(text)...) }

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

func (b *answerBlock) tokens() int64 {
	var sum int64
	for _, p := range b.pieces {
		sum += p.tokens
	}
	return sum
}

func (a *answer) tokens() int64 {
	var sum int64
	for i := range a.blocks {
		sum += a.blocks[i].tokens()
	}
	return sum
}

// resize makes the answer exactly n tokens long: it lengthens the text, or adds
// one before a tool call, or cuts what is too much.
func (a *answer) resize(n int64) {
	missing := n - a.tokens()
	if missing <= 0 {
		a.truncate(n)
		return
	}
	var pieces []piece
	for ; missing > 0; missing -= fillerTokens {
		tokens := min(missing, fillerTokens)
		pieces = append(pieces, piece{text: filler[:4*tokens], tokens: tokens})
	}
	text := a.textBlock()
	text.pieces = append(text.pieces, pieces...)
}

// addHuge puts a piece of n bytes before the rest of the text. It counts as many
// tokens as such a text has, or as many as most leaves: no answer has more.
func (a *answer) addHuge(n int, most int64) {
	tokens := min(textTokens(n), most-a.tokens())
	text := a.textBlock()
	huge := piece{text: strings.Repeat(filler, n/len(filler)+1)[:n], tokens: tokens}
	text.pieces = slices.Insert(text.pieces, 0, huge)
}

// textBlock returns the first text block, which it adds before a tool call if
// there is none.
func (a *answer) textBlock() *answerBlock {
	isText := func(b answerBlock) bool { return b.kind == "text" }
	i := slices.IndexFunc(a.blocks, isText)
	if i < 0 {
		i = len(a.blocks)
		if i > 0 && a.blocks[i-1].kind == "tool_use" {
			i--
		}
		a.blocks = slices.Insert(a.blocks, i, answerBlock{kind: "text"})
	}
	return &a.blocks[i]
}

// truncate drops what is beyond n tokens and reports whether anything was.
func (a *answer) truncate(n int64) bool {
	for i := range a.blocks {
		for j := range a.blocks[i].pieces {
			p := &a.blocks[i].pieces[j]
			if p.tokens <= n {
				n -= p.tokens
				continue
			}
			p.text = p.text[:runeBoundary(p.text, int(int64(len(p.text))*n/p.tokens))]
			p.tokens = n
			keep := j + 1
			if n == 0 {
				keep = j
			}
			a.blocks[i].pieces = a.blocks[i].pieces[:keep]
			a.blocks = a.blocks[:i+1]
			return true
		}
	}
	return false
}

// joined returns the text of all pieces but the signature.
func (b *answerBlock) joined() string {
	var text strings.Builder
	for _, p := range b.pieces {
		if !p.signature {
			text.WriteString(p.text)
		}
	}
	return text.String()
}
