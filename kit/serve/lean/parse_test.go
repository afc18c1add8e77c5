package lean

import (
	"bufio"
	"bytes"
	"net/http"
	"reflect"
	"testing"
)

// FuzzParse has http.ReadRequest read the same heads.
func FuzzParse(f *testing.F) {
	for _, e := range exchanges {
		f.Add([]byte(e.send))
	}
	f.Add([]byte(post("x", "pragma: no-cache", "x-api-key:k ", "X-Api-Key:\tl", "accept:")))
	f.Add([]byte(post("x", "Pragma: no-cache", "cache-control: x")))
	hot := map[string]http.Handler{hotPath: http.NotFoundHandler()}
	f.Fuzz(func(t *testing.T, text []byte) {
		var s scan
		if s.more(text, hot) != ours {
			return
		}
		head := text[:s.at]
		want, wantErr := http.ReadRequest(bufio.NewReader(bytes.NewReader(head)))
		got, err := parse(t.Context(), head)
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("%q: %v, want %v", head, err, wantErr)
		}
		if err != nil {
			return
		}
		if got.ContentLength != s.length {
			t.Errorf("%q: the length is %d", head, got.ContentLength)
		}
		want.Body = nil
		got, want = got.WithContext(t.Context()), want.WithContext(t.Context())
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%.200q:\n got %.500v\nwant %.500v", head, got, want)
		}
	})
}
