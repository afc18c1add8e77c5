package proxy

import (
	"bytes"
	"encoding/binary"
	"math/bits"
)

// deepestJSON is how deep values may stand in each other, as in encoding/json.
const deepestJSON = 10_000

// validJSON is json.Valid in a tenth of the time: bodies are mostly long strings. Of a
// body without control characters, as most are that a program has written, they are
// only searched for quotes and backslashes; of others they are read eight bytes at a
// time.
func validJSON(b []byte) bool {
	v := validator{clean: clean(b)}
	i := v.value(b, space(b, 0), 0)
	return i > 0 && space(b, i) == len(b)
}

type validator struct{ clean bool }

// space returns where the spaces end that begin at i.
func space(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\t' || b[i] == '\r') {
		i++
	}
	return i
}

// value returns the end of the value that begins at i; 0: there is none. So do
// the others.
func (v validator) value(b []byte, i, depth int) int {
	if i >= len(b) || depth > deepestJSON {
		return 0
	}
	switch c := b[i]; {
	case c == '"':
		return v.string(b, i)
	case c == '{':
		return v.object(b, i, depth+1)
	case c == '[':
		return v.array(b, i, depth+1)
	case c == '-' || '0' <= c && c <= '9':
		return validNumber(b, i)
	case c == 't':
		return validWord(b, i, "true")
	case c == 'f':
		return validWord(b, i, "false")
	case c == 'n':
		return validWord(b, i, "null")
	}
	return 0
}

func validWord(b []byte, i int, word string) int {
	if end := i + len(word); end <= len(b) && string(b[i:end]) == word {
		return end
	}
	return 0
}

func (v validator) object(b []byte, i, depth int) int {
	if depth > deepestJSON {
		return 0
	}
	i = space(b, i+1)
	if i < len(b) && b[i] == '}' {
		return i + 1
	}
	for i < len(b) && b[i] == '"' {
		if i = v.string(b, i); i == 0 {
			return 0
		}
		if i = space(b, i); i >= len(b) || b[i] != ':' {
			return 0
		}
		if i = v.value(b, space(b, i+1), depth); i == 0 {
			return 0
		}
		switch i = space(b, i); {
		case i >= len(b):
			return 0
		case b[i] == '}':
			return i + 1
		case b[i] != ',':
			return 0
		}
		i = space(b, i+1)
	}
	return 0
}

func (v validator) array(b []byte, i, depth int) int {
	if depth > deepestJSON {
		return 0
	}
	i = space(b, i+1)
	if i < len(b) && b[i] == ']' {
		return i + 1
	}
	for {
		if i = v.value(b, i, depth); i == 0 {
			return 0
		}
		switch i = space(b, i); {
		case i >= len(b):
			return 0
		case b[i] == ']':
			return i + 1
		case b[i] != ',':
			return 0
		}
		i = space(b, i+1)
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

func (v validator) string(b []byte, i int) int {
	if v.clean {
		return cleanString(b, i+1)
	}
	for i = plain(b, i+1); i < len(b); i = plain(b, i) {
		switch {
		case b[i] == '"':
			return i + 1
		case b[i] != '\\' || i+1 >= len(b):
			return 0
		}
		switch b[i+1] {
		case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			i += 2
		case 'u':
			if i+6 > len(b) || !isHex(b[i+2]) || !isHex(b[i+3]) || !isHex(b[i+4]) || !isHex(b[i+5]) {
				return 0
			}
			i += 6
		default:
			return 0
		}
	}
	return 0
}

// cleanString returns the end of a string without control characters, whose text
// begins at i.
func cleanString(b []byte, i int) int {
	for {
		length := bytes.IndexByte(b[i:], '"')
		if length < 0 {
			return 0
		}
		for end := i + length; i <= end; {
			slash := bytes.IndexByte(b[i:end], '\\')
			if slash < 0 {
				return end + 1
			}
			i += slash
			switch b[i+1] { // the quote at the latest
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
				i += 2
			case 'u':
				if i+6 > end || !isHex(b[i+2]) || !isHex(b[i+3]) || !isHex(b[i+4]) || !isHex(b[i+5]) {
					return 0
				}
				i += 6
			default:
				return 0
			}
		}
	}
}

// clean says that there is no control character.
func clean(b []byte) bool {
	for ; len(b) >= 32; b = b[32:] {
		w0, w1 := binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])
		w2, w3 := binary.LittleEndian.Uint64(b[16:]), binary.LittleEndian.Uint64(b[24:])
		if ((w0-' '*ones)&^w0|(w1-' '*ones)&^w1|(w2-' '*ones)&^w2|(w3-' '*ones)&^w3)&highs != 0 {
			return false
		}
	}
	for _, c := range b {
		if c < ' ' {
			return false
		}
	}
	return true
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// Every byte of a word of eight.
const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// plain returns where the bytes end, from i on, that stand for themselves in a
// string: at a quote, a backslash or a control character.
func plain(b []byte, i int) int {
	for ; i+8 <= len(b); i += 8 {
		w := binary.LittleEndian.Uint64(b[i:])
		quote, slash := w^('"'*ones), w^('\\'*ones)
		// The high bit of a byte is set where it is less than a space, or zero in
		// one of the differences; the first such byte is right, later ones may not be.
		if found := ((w-' '*ones)&^w | (quote-ones)&^quote | (slash-ones)&^slash) & highs; found != 0 {
			return i + bits.TrailingZeros64(found)/8
		}
	}
	for i < len(b) && b[i] >= ' ' && b[i] != '"' && b[i] != '\\' {
		i++
	}
	return i
}
