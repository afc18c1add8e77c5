package autumn

import (
	"encoding/json"
	"net"
	"net/http"
	"strconv"
	"time"
)

// drop closes the client's connection, after what was written has left. It
// needs HTTP/1.
func drop(w http.ResponseWriter) {
	rc := http.NewResponseController(w)
	if conn, _, err := rc.Hijack(); err == nil {
		_ = conn.Close()
	}
}

// sendHalf promises the whole answer and sends the first half. The caller ends
// the connection.
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
}

// reset ends the client's connection by a reset.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

// hold lets the client wait, until it leaves or the rule's time is over.
func hold(r *http.Request, rule Fault) {
	select {
	case <-r.Context().Done():
	case <-time.After(time.Duration(rule.DelayMS) * time.Millisecond):
	}
}
