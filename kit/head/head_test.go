package head

import (
	"bufio"
	"net/http"
	"net/textproto"
	"reflect"
	"strings"
	"testing"
)

// FuzzParse has net/textproto read the same lines.
func FuzzParse(f *testing.F) {
	f.Add("Content-Type: application/json\r\nx-api-key:\t k \t\r\nAccept:\r\n")
	f.Add("X-A: b\r\nx-a: c\r\nX-A:\r\n")
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		control := func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }
		if text != "" && !strings.HasSuffix(text, "\r\n") || strings.ContainsFunc(strings.ReplaceAll(text, "\r\n", ""), control) {
			return
		}
		want, err := textproto.NewReader(bufio.NewReader(strings.NewReader(text + "\r\n"))).ReadMIMEHeader()
		for _, odd := range []string{"\r\n\r\n", "\r\n ", "\r\n\t"} {
			if err != nil || strings.Contains("\r\n"+text, odd) {
				return // no header, or it has an end, or lines that go on
			}
		}
		got := http.Header{}
		lines := Parse(text, 2)
		for _, l := range lines {
			got[l.Name] = append(got[l.Name], l.Value)
		}
		if !reflect.DeepEqual(got, http.Header(want)) {
			t.Errorf("%q:\n got %q\nwant %q", text, got, want)
		}
		for name, values := range want {
			if first, found := lines.Find(name); !found || first != values[0] || lines.Get(name) != first {
				t.Errorf("%s is %q, %v, want %q", name, first, found, values[0])
			}
		}
		if value, found := lines.Find("X-None"); (value != "" || found) && want["X-None"] == nil {
			t.Errorf("X-None is %q", value)
		}
		if cap(lines)-len(lines) < 2 {
			t.Errorf("%q: there is no room", text)
		}
	})
}
