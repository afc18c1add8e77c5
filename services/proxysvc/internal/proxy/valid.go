package proxy

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/bits"
)

// deepestJSON is how deep values may stand in each other, as in encoding/json.
const deepestJSON = 10_000

// checked is how many bytes of a string in a request are looked at one by one. What
// follows them is text, in which only the end of the string is searched for: a bad
// escape or a control character there is left to the upstream, which refuses it. It
// moves no field, for every reader of JSON passes over a backslash and what follows it,
// and the one escape that is longer may not stand where that would matter (see atQuote).
const checked = 64

// validJSON says what json.Valid says, in a fifth of the time.
func validJSON(b []byte) bool {
	w := walk{b: b, checked: len(b)}
	i := w.value(w.space(0), 0)
	return i > 0 && w.space(i) == len(b)
}

// walk goes over a JSON text once, from the front to the back. Its methods return where
// what they read ends; 0: it is not valid.
type walk struct {
	b       []byte
	checked int // bytes of each string
	marks
}

// space returns where the spaces end that begin at i.
func (w *walk) space(i int) int {
	for b := w.b; i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\t' || b[i] == '\r'); {
		i++
	}
	return i
}

// value reads the value that begins at i and stands in so many others.
func (w *walk) value(i, depth int) int {
	if i >= len(w.b) || depth > deepestJSON {
		return 0
	}
	switch c := w.b[i]; {
	case c == '"':
		return w.string(i)
	case c == '{':
		return w.object(i, depth, nil)
	case c == '[':
		return w.array(i, depth, nil)
	case c == '-' || '0' <= c && c <= '9':
		return validNumber(w.b, i)
	case c == 't':
		return validWord(w.b, i, "true")
	case c == 'f':
		return validWord(w.b, i, "false")
	case c == 'n':
		return validWord(w.b, i, "null")
	}
	return 0
}

func validWord(b []byte, i int, word string) int {
	if end := i + len(word); end <= len(b) && string(b[i:end]) == word {
		return end
	}
	return 0
}

// object reads an object. field, if there is one, reads the value of each field in the
// place of value.
func (w *walk) object(i, depth int, field func(name span, i int) int) int {
	b := w.b
	if depth++; depth > deepestJSON {
		return 0
	}
	i = w.space(i + 1)
	if i < len(b) && b[i] == '}' {
		return i + 1
	}
	for i < len(b) && b[i] == '"' {
		name := span{from: i}
		if i = w.string(i); i == 0 {
			return 0
		}
		name.to = i
		if i = w.space(i); i >= len(b) || b[i] != ':' {
			return 0
		}
		if i = w.space(i + 1); field == nil {
			i = w.value(i, depth)
		} else {
			i = field(name, i)
		}
		if i == 0 {
			return 0
		}
		switch i = w.space(i); {
		case i >= len(b):
			return 0
		case b[i] == '}':
			return i + 1
		case b[i] != ',':
			return 0
		}
		i = w.space(i + 1)
	}
	return 0
}

// array reads an array. element, if there is one, reads each element in the place of
// value.
func (w *walk) array(i, depth int, element func(i int) int) int {
	b := w.b
	if depth++; depth > deepestJSON {
		return 0
	}
	i = w.space(i + 1)
	if i < len(b) && b[i] == ']' {
		return i + 1
	}
	for {
		if element == nil {
			i = w.value(i, depth)
		} else {
			i = element(i)
		}
		if i == 0 {
			return 0
		}
		switch i = w.space(i); {
		case i >= len(b):
			return 0
		case b[i] == ']':
			return i + 1
		case b[i] != ',':
			return 0
		}
		i = w.space(i + 1)
	}
}

func validNumber(b []byte, i int) int {
	if b[i] == '-' {
		i++
	}
	switch end := digits(b, i); {
	case end == i, b[i] == '0' && end > i+1:
		return 0
	default:
		i = end
	}
	if i < len(b) && b[i] == '.' {
		end := digits(b, i+1)
		if end == i+1 {
			return 0
		}
		i = end
	}
	if i < len(b) && (b[i] == 'e' || b[i] == 'E') {
		i++
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		end := digits(b, i)
		if end == i {
			return 0
		}
		i = end
	}
	return i
}

func digits(b []byte, i int) int {
	for i < len(b) && '0' <= b[i] && b[i] <= '9' {
		i++
	}
	return i
}

// string reads a string.
func (w *walk) string(i int) int {
	end := w.text(i + 1)
	if end > 0 {
		w.note(w.b[i+1 : end-1])
	}
	return end
}

// text reads a string from behind its first quote.
func (w *walk) text(i int) int {
	b := w.b
	for far := i + min(w.checked, len(b)); ; {
		i = plain(b, i, far)
		switch {
		case i >= far:
			return textEnd(b, i)
		case i >= len(b) || b[i] < ' ':
			return 0
		case b[i] == '"':
			return i + 1
		}
		if i = escape(b, i); i == 0 {
			return 0
		}
	}
}

// escape reads an escape in a string.
func escape(b []byte, i int) int {
	if i+1 >= len(b) {
		return 0
	}
	switch b[i+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return i + 2
	case 'u':
		if i+6 <= len(b) && isHex(b[i+2]) && isHex(b[i+3]) && isHex(b[i+4]) && isHex(b[i+5]) {
			return i + 6
		}
	}
	return 0
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// Every byte of a word of eight.
const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// plain returns where the bytes end, from i on, that stand for themselves in a string:
// at a quote, a backslash or a control character, and at far, or a little later, in any
// case.
func plain(b []byte, i, far int) int {
	for ; i < far && i+8 <= len(b); i += 8 {
		w := binary.LittleEndian.Uint64(b[i:])
		quote, slash := w^('"'*ones), w^('\\'*ones)
		// The high bit of a byte is set where it is less than a space, or zero in
		// one of the differences; the first such byte is right, later ones may not be.
		if found := ((w-' '*ones)&^w | (quote-ones)&^quote | (slash-ones)&^slash) & highs; found != 0 {
			return i + bits.TrailingZeros64(found)/8
		}
	}
	for i < far && i < len(b) && b[i] >= ' ' && b[i] != '"' && b[i] != '\\' {
		i++
	}
	return i
}

// textEnd returns where a string ends whose text is not looked at from first on: behind
// the first quote that is not escaped. JSON in a string has a quote every few bytes;
// where they are near each other, they are looked for in 64 bytes at once.
func textEnd(b []byte, first int) int {
	for i := first; ; {
		n := bytes.IndexByte(b[i:], '"')
		if n < 0 {
			return 0
		}
		i += n
		if end, over := atQuote(b, first, i); over {
			return end
		}
		for i++; n < near && i+64 <= len(b); i += 64 {
			found := quotes((*[64]byte)(b[i:]))
			if found == 0 {
				n = near
			}
			for ; found != 0; found &= found - 1 {
				at := i + bits.TrailingZeros64(found)
				if at-first >= 8 && plainlyEscaped(b[at-8:]) {
					continue
				}
				if end, over := atQuote(b, first, at); over {
					return end
				}
			}
		}
	}
}

// near is how near to each other quotes are counted in words rather than searched for.
const near = 32

// quotes has a bit for each byte that is a quote, the first one's lowest.
func quotes(b *[64]byte) (found uint64) {
	for i := 0; i < len(b); i += 8 {
		found |= (equal(binary.LittleEndian.Uint64(b[i:]), '"') >> 7) * 0x0102040810204080 >> 56 << i
	}
	return found
}

// equal has the high bit of each byte of a word that is c.
func equal(word uint64, c byte) uint64 {
	w := word ^ uint64(c)*ones
	return ^((w&^highs + ^uint64(highs)) | w) & highs
}

// plainlyEscaped says that one backslash stands before a quote, behind the first seven
// bytes, and no escape \u in them. If it does not, somebody else must look.
func plainlyEscaped(b []byte) bool {
	w := binary.LittleEndian.Uint64(b)
	slashes := equal(w, '\\')
	return slashes>>48 == 0x8000 && slashes<<8&equal(w, 'u') == 0
}

// atQuote says whether the quote at i ends the string whose text is not looked at from
// first on, and where that is. Not valid, and over, is one behind an escape \u that has
// not its four digits yet: who counts them without a look goes on beyond the quote.
func atQuote(b []byte, first, i int) (end int, over bool) {
	slash := i // the first one of those before the quote
	for slash > first && b[slash-1] == '\\' {
		slash--
	}
	if slash-first < 5 || fourHave(b[slash-5:], '\\') {
		for at := max(first, slash-5); at+1 < slash; at++ {
			if b[at] == '\\' && b[at+1] == 'u' && !isEscaped(b, first, at) {
				return 0, true
			}
		}
	}
	return i + 1, (i-slash)%2 == 0
}

// fourHave says whether a byte is one of the first four.
func fourHave(b []byte, c byte) bool {
	w := binary.LittleEndian.Uint32(b) ^ uint32(c)*(ones&math.MaxUint32)
	return (w-ones&math.MaxUint32)&^w&(highs&math.MaxUint32) != 0
}

// isEscaped says whether the byte at i has an odd number of backslashes before it.
func isEscaped(b []byte, first, i int) bool {
	slash := i
	for slash > first && b[slash-1] == '\\' {
		slash--
	}
	return (i-slash)%2 == 1
}
