package lean

import (
	"bytes"
	"io"
	"net/http"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// cpu is what this process has used, client and server.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkDelta is one flushed piece of a stream.
func BenchmarkDelta(b *testing.B) {
	for name, hot := range map[string]bool{"lean": true, "net-http": false} {
		b.Run(name, func(b *testing.B) {
			next := make(chan struct{})
			s := start(b, hot, func(w http.ResponseWriter, _ *http.Request) {
				rc := http.NewResponseController(w)
				piece := bytes.Repeat([]byte("d"), 150)
				for range next {
					w.Write(piece) //nolint:errcheck // Flush says so
					if rc.Flush() != nil {
						return
					}
				}
			})
			c := s.dial()
			c.send(post("x"))
			buf := make([]byte, 8192)
			b.ReportAllocs()
			begun := cpu(b)
			for b.Loop() {
				next <- struct{}{}
				if _, err := c.Read(buf); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(cpu(b)-begun)/float64(b.N), "cpu-ns/op")
			close(next)
		})
	}
}

// BenchmarkOpenStreams says what a stream takes up between its deltas, the same
// client on both sides of the comparison included.
func BenchmarkOpenStreams(b *testing.B) {
	const streams = 500
	for name, hot := range map[string]bool{"lean": true, "net-http": false} {
		b.Run(name, func(b *testing.B) {
			release := make(chan struct{})
			s := start(b, hot, func(w http.ResponseWriter, r *http.Request) {
				io.Copy(io.Discard, r.Body) //nolint:errcheck // it is here
				http.NewResponseController(w).Flush()
				<-release
			})
			defer close(release)
			var before, after runtime.MemStats
			for b.Loop() {
				runtime.GC()
				runtime.GC() // pools are empty after two
				runtime.ReadMemStats(&before)
				goroutines := runtime.NumGoroutine()
				for range streams {
					c := s.dial()
					c.send(post("x"))
					if _, err := c.br.ReadString('\n'); err != nil {
						b.Fatal(err)
					}
				}
				runtime.GC()
				runtime.GC()
				runtime.ReadMemStats(&after)
				use := func(m runtime.MemStats) float64 { return float64(m.HeapAlloc + m.StackInuse) }
				b.ReportMetric((use(after)-use(before))/streams, "B/stream")
				b.ReportMetric(float64(runtime.NumGoroutine()-goroutines)/streams, "goroutines/stream")
			}
		})
	}
}

// BenchmarkRequest is a request of 2 KB that is answered with as much.
func BenchmarkRequest(b *testing.B) {
	for name, hot := range map[string]bool{"lean": true, "net-http": false} {
		b.Run(name, func(b *testing.B) {
			answer := bytes.Repeat([]byte("a"), 2000)
			s := start(b, hot, func(w http.ResponseWriter, r *http.Request) {
				var buf [4096]byte
				for err := error(nil); err == nil; {
					_, err = r.Body.Read(buf[:])
				}
				w.Header()["Content-Type"] = []string{"application/json"}
				w.Write(answer) //nolint:errcheck // the client is this function
			})
			c := s.dial()
			request := []byte(post(strings.Repeat("x", 2000), "Accept: */*", "Authorization: Bearer sk-1", "User-Agent: bench",
				"Content-Type: application/json", "Anthropic-Version: 2023-06-01"))
			buf := make([]byte, 8192)
			b.ReportAllocs()
			begun := cpu(b)
			for b.Loop() {
				if _, err := c.Write(request); err != nil {
					b.Fatal(err)
				}
				for got := 0; !bytes.HasSuffix(buf[:got], answer); {
					n, err := c.Read(buf[got:])
					if err != nil {
						b.Fatal(err)
					}
					got += n
				}
			}
			b.ReportMetric(float64(cpu(b)-begun)/float64(b.N), "cpu-ns/op")
		})
	}
}
