package dev

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	sdk "github.com/anthropics/anthropic-sdk-go/v2"
	"github.com/anthropics/anthropic-sdk-go/v2/option"
)

// goSDK2 is Anthropic's Go SDK, major 2.
type goSDK2 struct{ client sdk.Client }

func connectSDK2(p *goPlay, url, key string) goSDK {
	return goSDK2{sdk.NewClient(option.WithAPIKey(key), option.WithBaseURL(url), option.WithHTTPClient(&http.Client{Transport: p}))}
}

func (g goSDK2) params(ask goAsk) sdk.MessageNewParams {
	params := sdk.MessageNewParams{
		Model: ask.model, MaxTokens: 2000,
		Messages: []sdk.MessageParam{sdk.NewUserMessage(sdk.NewTextBlock(ask.text))},
	}
	if messages, ok := ask.messages.([]sdk.MessageParam); ok {
		params.Messages = messages
	}
	if ask.user != "" {
		params.Metadata.UserID = sdk.String(ask.user)
	}
	if ask.tool {
		params.Tools = []sdk.ToolUnionParam{{OfTool: &sdk.ToolParam{
			Name:        "balance",
			InputSchema: sdk.ToolInputSchemaParam{Properties: map[string]any{"team": map[string]any{"type": "string"}}, Required: []string{"team"}},
		}}}
	}
	return params
}

func (g goSDK2) send(ctx context.Context, ask goAsk, each func(event, text string)) (goAnswer, error) {
	var resp *http.Response
	params, into := g.params(ask), option.WithResponseInto(&resp)
	switch {
	case ask.stream:
		m, err := g.stream(ctx, params, each, into)
		return g.answer(params, m, resp, err)
	case len(ask.betas) > 0:
		m, err := g.client.Beta.Messages.New(ctx, sdk.BetaMessageNewParams{
			Model: ask.model, MaxTokens: 2000, Betas: ask.betas,
			Messages: []sdk.BetaMessageParam{sdk.NewBetaUserMessage(sdk.NewBetaTextBlock(ask.text))},
		}, into)
		if err != nil {
			return goAnswer{}, err
		}
		a := goAnswer{text: m.Content[0].Text}
		a.answered = answered{m.ID, resp.Header.Get("Request-Id"), m.Usage.InputTokens, m.Usage.OutputTokens}
		return a, nil
	default:
		m, err := g.client.Messages.New(ctx, params, into)
		return g.answer(params, m, resp, err)
	}
}

func (g goSDK2) stream(ctx context.Context, params sdk.MessageNewParams, each func(event, text string), into option.RequestOption) (*sdk.Message, error) {
	events := g.client.Messages.NewStreaming(ctx, params, into)
	defer events.Close()
	var m sdk.Message
	for events.Next() {
		e := events.Current()
		if err := m.Accumulate(e); err != nil {
			return nil, fmt.Errorf("accumulate: %w", err)
		}
		each(e.Type, e.Delta.Text)
	}
	return &m, events.Err()
}

func (g goSDK2) answer(params sdk.MessageNewParams, m *sdk.Message, resp *http.Response, err error) (goAnswer, error) {
	if err != nil {
		return goAnswer{}, err
	}
	a := goAnswer{stopReason: string(m.StopReason)}
	a.answered = answered{m.ID, resp.Header.Get("Request-Id"), m.Usage.InputTokens, m.Usage.OutputTokens}
	next := append(params.Messages, m.ToParam())
	for _, block := range m.Content {
		a.text += block.Text
		if block.Type == "tool_use" {
			a.input = string(block.Input)
			next = append(next, sdk.NewUserMessage(sdk.NewToolResultBlock(block.ID, "12 credits", false)))
		}
	}
	a.next = next
	return a, nil
}

func (g goSDK2) count(ctx context.Context, ask goAsk) (int64, error) {
	count, err := g.client.Messages.CountTokens(ctx, sdk.MessageCountTokensParams{Model: ask.model, Messages: g.params(ask).Messages})
	if err != nil {
		return 0, err
	}
	return count.InputTokens, nil
}

func (g goSDK2) models(ctx context.Context) ([]string, error) {
	var ids []string
	pages := g.client.Models.ListAutoPaging(ctx, sdk.ModelListParams{Limit: sdk.Int(5)})
	for pages.Next() {
		ids = append(ids, pages.Current().ID)
	}
	return ids, pages.Err()
}

func (g goSDK2) model(ctx context.Context, id string) (string, error) {
	m, err := g.client.Models.Get(ctx, id, sdk.ModelGetParams{})
	if err != nil {
		return "", err
	}
	return m.ID, nil
}

func (g goSDK2) apiError(err error) (status int, kind, requestID string) {
	if e, ok := errors.AsType[*sdk.Error](err); ok {
		return e.StatusCode, string(e.Type()), e.RequestID
	}
	return 0, "", ""
}
