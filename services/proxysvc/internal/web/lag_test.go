package web_test

import (
	"bufio"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// BenchmarkDeltaLag streams 40 deltas each to 50 clients at once and reports how
// long after its sending an event reached the client, half of them and 99 of 100,
// through the proxy and directly.
func BenchmarkDeltaLag(b *testing.B) {
	const clients, deltas, pause = 50, 40, 10 * time.Millisecond
	s := newStandBefore(b, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		rc := http.NewResponseController(w)
		event := func(name, data string) {
			fmt.Fprintf(w, "event: %s\ndata: %s\n\n", name, data)
			rc.Flush()
		}
		event("message_start", `{"message":{"id":"msg_1","usage":{"input_tokens":5,"output_tokens":1}}}`)
		tick := time.NewTicker(pause)
		defer tick.Stop()
		for range deltas {
			<-tick.C
			event("content_block_delta", fmt.Sprintf(`{"at":%d,"delta":{"type":"text_delta","text":"x"}}`, time.Now().UnixNano()))
		}
		event("message_delta", `{"usage":{"output_tokens":40}}`)
		event("message_stop", `{}`)
	}), nil)
	for name, url := range map[string]string{"proxied": s.proxy.URL, "direct": s.upstream.URL} {
		b.Run(name, func(b *testing.B) {
			var mu sync.Mutex
			var lags []time.Duration
			for b.Loop() {
				var all sync.WaitGroup
				for range clients {
					all.Go(func() {
						resp := s.send(b.Context(), url, virtualKey, "/v1/messages", body(true, ""))
						defer resp.Body.Close() // read to its end
						for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
							_, at, found := strings.Cut(lines.Text(), `"at":`)
							if !found {
								continue
							}
							at, _, _ = strings.Cut(at, ",")
							sent, err := strconv.ParseInt(at, 10, 64)
							if err != nil {
								b.Error(err)
								return
							}
							lag := time.Duration(time.Now().UnixNano() - sent)
							mu.Lock()
							lags = append(lags, lag)
							mu.Unlock()
						}
					})
				}
				all.Wait()
			}
			slices.Sort(lags)
			b.ReportMetric(float64(lags[len(lags)/2].Microseconds()), "µs-p50")
			b.ReportMetric(float64(lags[len(lags)*99/100].Microseconds()), "µs-p99")
		})
	}
}
