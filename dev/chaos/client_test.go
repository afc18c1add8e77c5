package chaos

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"time"
)

// attempt is one HTTP request of a client and what came of it.
type attempt struct {
	name    string // its User-Agent
	ask     *ask
	key     int
	replica int
	status  int    // 0: no answer came
	refusal string // the error type of an answer that is none of the simulator's
	retry   bool   // the answer allows another try
	// complete says that the end of the answer arrived: message_stop, or the whole
	// body.
	complete bool
	bytes    int64 // of generated text that arrived
	left     bool  // the client went by itself
	died     bool  // its replica was ended meanwhile
	ended    time.Time
	err      error
}

// client sends its requests one after the other, each to any replica, as behind
// a load balancer, and tries again as Anthropic's SDKs do, but sooner.
type client struct {
	number   int
	secrets  []string
	replicas []*service
	rand     *rand.Rand
	http     http.Client
	done     []attempt
}

// maxRetries is what the SDKs have; backoff is much shorter than theirs.
const maxRetries = 2

// run sends requests until there are no more, or the storm is over; a request
// that runs then is brought to its end.
func (c *client) run(ctx context.Context, over <-chan struct{}, list []ask) {
	for i := range list {
		for try := range maxRetries + 1 {
			wait := list[i].wait
			if try > 0 {
				wait = time.Duration(50+c.rand.IntN(100)) * time.Millisecond << try
			}
			select {
			case <-over:
				return
			default:
			}
			if !pause(ctx, wait) {
				return
			}
			a := c.attempt(ctx, &list[i])
			c.done = append(c.done, a)
			if a.complete || a.left || !a.retry {
				break
			}
		}
	}
}

func (c *client) attempt(ctx context.Context, what *ask) attempt {
	a := attempt{
		name: fmt.Sprintf("chaos/%d.%d", c.number, len(c.done)), ask: what, key: what.key,
		replica: c.rand.IntN(len(c.replicas)), retry: true,
	}
	ctx, leave := context.WithCancel(ctx)
	defer leave()
	if what.abortIn > 0 {
		defer time.AfterFunc(what.abortIn, leave).Stop()
	}
	resp, deaths, err := c.send(ctx, &a)
	if err == nil {
		defer resp.Body.Close()
		err = a.read(resp)
	}
	a.ended = time.Now()
	a.died = c.replicas[a.replica].died() != deaths
	if errors.Is(err, errLeft) || ctx.Err() != nil && !a.complete {
		a.left = true
	}
	a.err = err
	return a
}

// send asks one replica after the other until one takes the connection, and
// tells how often that one had died before.
func (c *client) send(ctx context.Context, a *attempt) (resp *http.Response, deaths int, err error) {
	for tries := 1; ; tries++ {
		deaths = c.replicas[a.replica].died()
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+c.replicas[a.replica].http+"/v1/messages", strings.NewReader(a.ask.body()))
		if err != nil {
			return nil, deaths, err
		}
		req.Header.Set("User-Agent", a.name)
		req.Header.Set("X-Api-Key", c.secrets[a.key])
		req.Header.Set("Anthropic-Version", "2023-06-01")
		req.Header.Set("Content-Type", "application/json")
		resp, err = c.http.Do(req)
		if failed, ok := errors.AsType[*net.OpError](err); !ok || failed.Op != "dial" || tries == len(c.replicas) {
			return resp, deaths, err
		}
		a.replica = (a.replica + 1) % len(c.replicas)
	}
}

var errLeft = errors.New("the client left")

// read takes the answer.
func (a *attempt) read(resp *http.Response) error {
	a.status = resp.StatusCode
	again := a.status == 408 || a.status == 409 || a.status == 429 || a.status >= 500
	a.retry = again && resp.Header.Get("X-Should-Retry") != "false"
	switch {
	case a.status != http.StatusOK:
		return a.readError(resp)
	case a.ask.stream:
		return a.readStream(resp.Body)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	var message struct {
		Type string `json:"type"`
	}
	if err := json.Unmarshal(body, &message); err != nil || message.Type != "message" {
		return fmt.Errorf("an answer that is no message: %w", err)
	}
	a.complete = true
	return nil
}

func (a *attempt) readError(resp *http.Response) error {
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	var e struct {
		Error struct {
			Type, Message string
		}
	}
	if err := json.Unmarshal(body, &e); err != nil {
		return fmt.Errorf("an error that is none: %w", err)
	}
	if e.Error.Message != "simulated error" {
		a.refusal = e.Error.Type
	}
	return nil
}

// readStream reads events until the end, or until it has had enough.
func (a *attempt) readStream(body io.Reader) error {
	lines := bufio.NewScanner(body)
	deltas := 0
	for lines.Scan() {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		var event struct {
			Type  string
			Delta struct{ Text string }
		}
		if err := json.Unmarshal([]byte(data), &event); err != nil {
			return err
		}
		switch event.Type {
		case "message_stop":
			a.complete = true
		case "error":
			return errors.New("error event: " + data)
		case "content_block_delta":
			a.bytes += int64(len(event.Delta.Text))
			if deltas++; deltas == a.ask.abortAfter {
				return errLeft
			}
		}
	}
	return lines.Err()
}

// body is the request: two sizes of cached prompt, a question, the simulator's
// script.
func (a *ask) body() string {
	type block map[string]any
	request := map[string]any{
		"model": a.model, "max_tokens": a.maxTokens, "stream": a.stream,
		"messages": []block{{"role": "user", "content": "What now? [[sim:" + a.script + "]]"}},
	}
	if a.cached {
		prompt := strings.Repeat("You keep the books. ", 20+20*(a.maxTokens%3))
		request["system"] = []block{{"type": "text", "text": prompt, "cache_control": block{"type": "ephemeral"}}}
	}
	text, err := json.Marshal(request)
	if err != nil {
		return "" // cannot happen: it is made of strings and numbers
	}
	return string(text)
}
