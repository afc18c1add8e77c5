package key

import (
	"encoding/base64"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
)

// Page says which part of a list is wanted.
type Page struct {
	Size  int    // 1 to 1000; 0: 100
	Token string // from the page before; empty: the first page
	Skip  int    // entries to leave out after that; 0 to 100000
}

const (
	defaultPage = 100
	largestPage = 1000
	largestSkip = 100_000
	longestMark = 4096 // characters of what a token holds
)

// read returns what the page before ended with, and the page's size.
func (p Page) read() (last string, size int, err error) {
	if p.Size < 0 || p.Size > largestPage {
		return "", 0, fault.Errorf(fault.Invalid, "page_size %d is not from 1 to %d", p.Size, largestPage)
	}
	if p.Skip < 0 || p.Skip > largestSkip {
		return "", 0, fault.Errorf(fault.Invalid, "skip %d is not from 0 to %d", p.Skip, largestSkip)
	}
	if size = p.Size; size == 0 {
		size = defaultPage
	}
	raw, err := base64.RawURLEncoding.DecodeString(p.Token)
	if err != nil || checkText("page_token", string(raw), longestMark) != nil {
		return "", 0, fault.Errorf(fault.Invalid, "page_token is not one that an earlier page gave")
	}
	return string(raw), size, nil
}

// pageToken makes the token of the page that follows.
func pageToken(last string) string { return base64.RawURLEncoding.EncodeToString([]byte(last)) }
