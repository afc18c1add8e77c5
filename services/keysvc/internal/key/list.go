package key

import (
	"context"
	"encoding/json"
	"strconv"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/money"
)

// State is what a key that is listed is.
type State string

// The states. A key that is several of them has the last one.
const (
	StateActive  State = "active"
	StateBlocked State = "blocked"
	StateExpired State = "expired"
	StateRevoked State = "revoked"
)

// Sort is what keys are listed by. The empty one is the time they were made.
type Sort string

// The orders.
const (
	ByUpdate Sort = "updated_at"
	ByAlias  Sort = "key_alias"
	ByBudget Sort = "max_budget"
)

// Filter says which keys to list. Empty fields do not filter.
type Filter struct {
	TeamID, UserID, KeyAlias, Token string
	// State is judged at Now. Empty: keys that have not ended, or with Ended all.
	State                       State
	Ended                       bool
	CreatedAfter, CreatedBefore time.Time
	Now                         time.Time
}

// Slice is the part of a sorted list that is wanted: up to Limit entries, after
// Skip ones, behind the cursor.
type Slice struct {
	Sort        Sort
	Ascending   bool
	Behind      *Cursor // nil: from the beginning
	Skip, Limit int
}

// Cursor is a place in a sorted list: the entry that it stands behind. Value is
// what the list is sorted by, besides the id; it is empty where that is all.
type Cursor struct {
	Value string `json:"v,omitempty"`
	ID    string `json:"i"`
}

// Listed is a page of a list.
type Listed[T any] struct {
	Items []T
	Next  string // token of the next page; empty: this is the last
	Total *int64 // nil: it was not asked for
}

// ListRequest asks for a page of keys.
type ListRequest struct {
	Filter    Filter // Now is not used
	Sort      Sort
	Ascending bool
	Page      Page
	Count     bool // also count them
}

// Keys lists keys.
func (s *Service) Keys(ctx context.Context, r ListRequest) (Listed[Key], error) {
	last, size, err := r.Page.read()
	if err != nil {
		return Listed[Key]{}, err
	}
	slice := Slice{Sort: r.Sort, Ascending: r.Ascending, Skip: r.Page.Skip, Limit: size + 1}
	if slice.Behind, err = r.Sort.cursor(last); err != nil {
		return Listed[Key]{}, err
	}
	for _, err := range []error{
		checkText("team_id", r.Filter.TeamID, longestID),
		checkText("user_id", r.Filter.UserID, longestID),
		checkText("key_alias", r.Filter.KeyAlias, longestName),
		checkText("token", r.Filter.Token, longestName),
	} {
		if err != nil {
			return Listed[Key]{}, err
		}
	}
	r.Filter.Now = s.now()
	var out Listed[Key]
	if out.Items, err = s.store.Keys(ctx, r.Filter, slice); err != nil {
		return out, err
	}
	if len(out.Items) > size {
		out.Items = out.Items[:size]
		out.Next = pageToken(r.Sort.behind(out.Items[size-1]).text())
	}
	if r.Count {
		out.Total = new(int64)
		*out.Total, err = s.store.CountKeys(ctx, r.Filter)
	}
	return out, err
}

// NoBudget is what a key without a budget is sorted as.
const NoBudget = money.NanoUSD(1<<63 - 1)

// behind is the place after the key.
func (s Sort) behind(k Key) Cursor {
	c := Cursor{ID: k.KeyID}
	switch s {
	case ByUpdate:
		c.Value = k.UpdatedAt.Format(time.RFC3339Nano)
	case ByAlias:
		c.Value = k.KeyAlias
	case ByBudget:
		budget := NoBudget
		if k.MaxBudgetNanoUSD != nil {
			budget = *k.MaxBudgetNanoUSD
		}
		c.Value = strconv.FormatInt(int64(budget), 10)
	}
	return c
}

func (c Cursor) text() string {
	doc, err := json.Marshal(c)
	if err != nil {
		return "" // two texts can always be written
	}
	return string(doc)
}

// cursor reads the text of a cursor that was made for this order.
func (s Sort) cursor(text string) (*Cursor, error) {
	if text == "" {
		return nil, nil
	}
	var c Cursor
	err := json.Unmarshal([]byte(text), &c)
	if err == nil {
		switch s {
		case ByUpdate:
			_, err = time.Parse(time.RFC3339Nano, c.Value)
		case ByBudget:
			_, err = strconv.ParseInt(c.Value, 10, 64)
		}
	}
	if err != nil || checkText("page_token", c.Value+c.ID, longestID+longestName) != nil {
		return nil, fault.Errorf(fault.Invalid, "page_token is not one that an earlier page of this list gave")
	}
	return &c, nil
}
