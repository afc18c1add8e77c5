package key

import (
	"encoding/base64"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
)

// Page says which part of a list is wanted.
type Page struct {
	Size  int    // 1 to 1000; 0: 100
	Token string // from the page before; empty: the first page
}

const (
	defaultPage = 100
	largestPage = 1000
)

// read returns the id that the page before ended with, and the page's size.
func (p Page) read() (last string, size int, err error) {
	if p.Size < 0 || p.Size > largestPage {
		return "", 0, fault.Errorf(fault.Invalid, "page_size %d is not from 1 to %d", p.Size, largestPage)
	}
	if size = p.Size; size == 0 {
		size = defaultPage
	}
	raw, err := base64.RawURLEncoding.DecodeString(p.Token)
	if err != nil || checkText("page_token", string(raw), longestID) != nil {
		return "", 0, fault.Errorf(fault.Invalid, "page_token is not one that an earlier page gave")
	}
	return string(raw), size, nil
}

// pageToken makes the token of the page that follows the given id.
func pageToken(last string) string { return base64.RawURLEncoding.EncodeToString([]byte(last)) }
