package proxy

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

var jsonTexts = []string{
	`{}`, ` [ ] `, `""`, `"a"`, "\"a\nb\"", `"\u00e9\ud83d\"\\\/\b\f\n\r\t"`, `"\u12g4"`, `"\u123`, `"\x"`, `"\`, `"`, `{"a":1,}`, `{"a" : [1, 2 , {"b":null}] }`,
	`[1,]`, `[,1]`, `{"a"}`, `{"a":}`, `{a:1}`, `{"a":1 "b":2}`, `true`, `tru`, `trues`, `nul`, `-`, `-0`, `01`, `1.`, `1.5`, `.5`, `1e5`, `1E+`, `1e-07`, `--1`, `+1`,
	`12345678901234567890123`, `[[[[]]]]`, `[[[[]]]`, "\x00", "\ufeff{}", "{}\n\n", `{}{}`, ``, ` `, "\"\xff\xfe\"", `"seven77"`, `"eight888"`, `"nine99999" `,
	"\"a quote in the first word\\\"\"", "\"control in a word \x1f \"", "\"\x7f\x80\"", `{"":""}`, `{"a":1,"a":2}`,
	strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000), strings.Repeat("[", 10_001) + strings.Repeat("]", 10_001),
	strings.Repeat(`{"a":`, 10_000) + "1" + strings.Repeat("}", 10_000), strings.Repeat(`{"a":`, 10_001) + "1" + strings.Repeat("}", 10_001),
}

func TestValidJSONSaysWhatTheStandardLibrarySays(t *testing.T) {
	t.Parallel()
	for _, text := range jsonTexts {
		if got, want := validJSON([]byte(text)), json.Valid([]byte(text)); got != want {
			t.Errorf("validJSON(%.60q) = %t, want %t", text, got, want)
		}
	}
	// Every byte at every place of a long string.
	for at := range 20 {
		for c := range 256 {
			text := []byte(`"aaaaaaaaaaaaaaaaaaaaaaa"`)
			text[1+at] = byte(c)
			if got, want := validJSON(text), json.Valid(text); got != want {
				t.Errorf("validJSON(%q) = %t, want %t", text, got, want)
			}
		}
	}
}

// sane is a text without what may stand far in a string of a request: control
// characters become letters there, and so do backslashes that escape nothing.
func sane(text []byte) []byte {
	text = bytes.Clone(text)
	for i, first := 0, -1; i < len(text); i++ {
		far := first >= 0 && i-first >= checked
		switch {
		case first < 0 && text[i] == '"':
			first = i + 1
		case first < 0:
		case text[i] == '"':
			first = -1
		case text[i] < ' ' && far:
			text[i] = 'x'
		case text[i] == '\\' && far && escape(text, i) == 0:
			text[i] = 'x'
			if i++; i < len(text) {
				text[i] = 'x'
			}
		case text[i] == '\\':
			i++
		}
	}
	return text
}

// TestFarInAStringOnlyItsEndIsLookedFor has texts that json.Valid refuses, and others
// that it takes, behind as many bytes of a string as are looked at, and without them.
func TestFarInAStringOnlyItsEndIsLookedFor(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		text      string
		near, far bool
	}{
		{`x`, true, true},
		{`\n\"\\\u00e9`, true, true},
		{`\x`, false, true},
		{"\x00\n\x1f", false, true},
		{`\u12zz`, false, true},
		{`\\"`, false, false},
		{`\`, false, false},
		{`"`, false, false},
		{`","a":"`, true, true},
		{`\u`, false, false},
		{`\u1`, false, false},
		{`\u12`, false, false},
		{`\u123`, false, false},
		{`\u1234`, true, true},
		{`\\u12`, true, true},
		{`\\\u12`, false, false},
		{`\u123\" y`, false, false},
		{`\u123\\`, false, false},
		{strings.Repeat(`{\"a\":\"b\\\"\"}`, 20), true, true},
		{strings.Repeat(`{\"a\":\"b\"}`, 20) + `\`, false, false},
		{strings.Repeat(`{\"a\":\"b\"}`, 20) + `\u12`, false, false},
		{strings.Repeat(`{\"a\":\"b\"}`, 20) + `\u123\"` + strings.Repeat("y", 100), false, false},
		{strings.Repeat(`{\"a\":\"b\"}`, 20) + `\u\"` + strings.Repeat("y", 100), false, false},
		{strings.Repeat(`{\"a\":\"b\"}`, 20) + `\\","b":"` + strings.Repeat("y", 100), true, true},
		{strings.Repeat(`{\"a\":\"b\"}`, 20) + `",1,"` + strings.Repeat("y", 100), false, false},
		{strings.Repeat(`{\"a\":\"b\"}`, 20) + strings.Repeat("y", 200) + `\"`, true, true},
	} {
		for _, before := range []int{0, checked, checked + 1, checked + 2, checked + 3, checked + 4, checked + 5, checked + 6, checked + 7, checked + 63, checked + 1000} {
			text, want := []byte(`{"":"`+strings.Repeat("x", before)+tt.text+`"}`), tt.far
			if before == 0 {
				want = tt.near
			}
			w := walk{b: text, checked: checked}
			if got := w.value(0, 0) == len(text); got != want && (before > 0 || len(tt.text) < checked) {
				t.Errorf("%s is taken: %t, want %t", text, got, want)
			}
		}
	}
}

// FuzzWalk walks any text: what json.Valid takes is taken, and what is taken is valid
// but for what stands far in a string.
func FuzzWalk(f *testing.F) {
	for _, text := range jsonTexts {
		f.Add([]byte(text))
		f.Add([]byte(`["` + strings.Repeat("x", checked) + text + `"]`))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		w := walk{b: text, checked: checked}
		end := w.value(w.space(0), 0)
		taken := end > 0 && w.space(end) == len(text)
		if valid := json.Valid(text); valid && !taken || taken && !json.Valid(sane(text)) {
			t.Errorf("%q is taken: %t; valid: %t", text, taken, valid)
		}
	})
}

// FuzzValidJSON compares it with the standard library's, on what is whole and what
// is not.
func FuzzValidJSON(f *testing.F) {
	for _, text := range jsonTexts {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if got, want := validJSON(text), json.Valid(text); got != want {
			t.Errorf("validJSON(%q) = %t, want %t", text, got, want)
		}
	})
}
