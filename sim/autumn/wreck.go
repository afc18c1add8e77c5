package autumn

import (
	"encoding/json"
	"net/http"
	"strconv"
)

// drop closes the client's connection, after what was written has left. It
// needs HTTP/1.
func drop(w http.ResponseWriter) {
	rc := http.NewResponseController(w)
	if conn, _, err := rc.Hijack(); err == nil {
		_ = conn.Close()
	}
}

// sendHalf promises the whole answer and sends the first half.
func sendHalf(w http.ResponseWriter, answer reply) {
	body, err := json.Marshal(answer.body)
	if err != nil {
		drop(w)
		return
	}
	w.Header().Set("content-type", "application/json")
	w.Header().Set("content-length", strconv.Itoa(len(body)))
	w.WriteHeader(answer.status)
	_, _ = w.Write(body[:len(body)/2])
	_ = http.NewResponseController(w).Flush()
	drop(w)
}
