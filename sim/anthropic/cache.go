package anthropic

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"sync"
	"time"
)

// segment is one tool, system block or content block of a prompt: the places
// where a cached prefix can end.
type segment struct {
	tokens int64
	prefix [sha256.Size]byte // identifies all segments up to this one
	mark   *cacheControl
}

// imageTokens is what an image or a document counts, whatever its size.
const imageTokens = 1500

// textTokens is the whole tokenizer.
func textTokens(n int) int64 { return int64(n+3) / 4 }

// segments lists the prompt's segments in the order in which the API caches
// them: tools, system, messages. seed keeps callers and models apart.
func (p *prompt) segments(seed string) ([]segment, error) {
	list := segmentList{prefix: sha256.Sum256([]byte(p.model.id + "\n" + seed))}
	for _, t := range p.Tools {
		if err := list.add("tool", t.raw); err != nil {
			return nil, err
		}
	}
	for _, raw := range p.System {
		if err := list.add("system", raw); err != nil {
			return nil, err
		}
	}
	for _, m := range p.Messages {
		for _, raw := range m.Content {
			if err := list.add(m.Role, raw); err != nil {
				return nil, err
			}
		}
	}
	return list.all, nil
}

type segmentList struct {
	all    []segment
	prefix [sha256.Size]byte
}

// add appends a block. The mark itself and the order of the fields are no part
// of the prefix: agents move their marks from turn to turn.
func (l *segmentList) add(role string, raw json.RawMessage) error {
	var b block
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil {
		return invalid("%s: block is not an object", role)
	}
	if err := json.Unmarshal(raw, &b); err != nil {
		return invalid("%s: %v", role, err)
	}
	delete(fields, "cache_control")
	canonical, err := json.Marshal(fields)
	if err != nil {
		return invalid("%s: %v", role, err)
	}
	h := sha256.New()
	h.Write(l.prefix[:])
	h.Write([]byte(role + "\n"))
	h.Write(canonical)
	h.Sum(l.prefix[:0])
	l.all = append(l.all, segment{tokens: blockTokens(b, raw), prefix: l.prefix, mark: b.CacheControl})
	return nil
}

// blockTokens counts text by its length and other blocks by that of their JSON.
func blockTokens(b block, raw json.RawMessage) int64 {
	switch b.Type {
	case "text":
		return textTokens(len(b.Text))
	case "image", "document":
		return imageTokens
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, raw); err != nil {
		return textTokens(len(raw))
	}
	return textTokens(compact.Len())
}

// totalTokens is the size of the whole prompt; never zero.
func totalTokens(segments []segment) int64 {
	var sum int64
	for _, s := range segments {
		sum += s.tokens
	}
	return max(sum, 1)
}

// promptCache remembers which prefixes were written, and until when.
type promptCache struct {
	mu      sync.Mutex
	entries map[[sha256.Size]byte]cached
}

type cached struct {
	ttl     time.Duration
	expires time.Time
}

// use reads and writes the cache for one prompt and returns the prompt's pools:
// read up to the longest prefix that is still known, written up to the last
// mark, the rest uncached. A read prolongs the entry, as with the real API.
func (c *promptCache) use(segments []segment, now time.Time) Usage {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.entries == nil {
		c.entries = map[[sha256.Size]byte]cached{}
	}
	last := lastMark(segments)
	hit := c.longestHit(segments[:last+1], now)
	var u Usage
	for _, s := range segments[:hit+1] {
		u.CacheReadInputTokens += s.tokens
	}
	pending := int64(0)
	for _, s := range segments[hit+1 : last+1] {
		pending += s.tokens
		if s.mark == nil {
			continue
		}
		u.addWrite(pending, s.mark.ttl())
		c.entries[s.prefix] = cached{s.mark.ttl(), now.Add(s.mark.ttl())}
		pending = 0
	}
	u.InputTokens = max(totalTokens(segments)-u.CacheReadInputTokens-u.CacheCreationInputTokens, 0)
	return u
}

// longestHit returns the index of the last segment whose prefix is known, or -1.
func (c *promptCache) longestHit(segments []segment, now time.Time) int {
	for i := len(segments) - 1; i >= 0; i-- {
		if e, ok := c.entries[segments[i].prefix]; ok && now.Before(e.expires) {
			c.entries[segments[i].prefix] = cached{e.ttl, now.Add(e.ttl)}
			return i
		}
	}
	return -1
}

func (c *promptCache) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.entries)
}

func lastMark(segments []segment) int {
	last := -1
	for i, s := range segments {
		if s.mark != nil {
			last = i
		}
	}
	return last
}

func (m *cacheControl) ttl() time.Duration {
	if m.TTL == "1h" {
		return time.Hour
	}
	return 5 * time.Minute
}

func (u *Usage) addWrite(tokens int64, ttl time.Duration) {
	u.CacheCreationInputTokens += tokens
	if ttl == time.Hour {
		u.CacheCreation.Ephemeral1hInputTokens += tokens
		return
	}
	u.CacheCreation.Ephemeral5mInputTokens += tokens
}
