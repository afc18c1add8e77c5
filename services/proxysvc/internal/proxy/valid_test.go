package proxy

import (
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
