package load

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/rossby-go/rossby/cmd/demo/internal/transfer"
	"github.com/rossby-go/rossby/jetstream"
)

// httpTimeout bounds one request.
const httpTimeout = 15 * time.Second

// httpReaders is how many transfers are asked for at once.
const httpReaders = 8

// httpBank is a bank behind its HTTP API.
type httpBank struct {
	base   string
	client *http.Client
}

func newHTTPBank(base string, clients int) *httpBank {
	return &httpBank{base: strings.TrimSuffix(base, "/"), client: &http.Client{
		Timeout: httpTimeout,
		Transport: &http.Transport{
			MaxIdleConnsPerHost: clients + httpReaders, IdleConnTimeout: time.Minute, Proxy: http.ProxyFromEnvironment,
		},
	}}
}

func (b *httpBank) open(ctx context.Context, key, title string, cents int64) (string, error) {
	var out struct {
		AccountID string `json:"accountId"`
	}
	in := map[string]any{"title": title, "initialCents": cents}
	_, err := b.call(ctx, http.MethodPost, "/api/accounts", key, in, &out)
	return out.AccountID, err
}

func (b *httpBank) transfer(ctx context.Context, key string, o order) (string, error) {
	var out struct {
		TransferID string `json:"transferId"`
	}
	_, err := b.call(ctx, http.MethodPost, "/api/transfers", key, o, &out)
	return out.TransferID, err
}

func (b *httpBank) states(ctx context.Context, ids []string) (map[string]transfer.State, error) {
	var mu sync.Mutex
	states := map[string]transfer.State{}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(httpReaders)
	for _, id := range ids {
		g.Go(func() error {
			var out struct {
				State transfer.State `json:"state"`
			}
			status, err := b.call(ctx, http.MethodGet, "/api/transfers/"+id, "", nil, &out)
			if status == http.StatusNotFound {
				return nil // the view is behind
			}
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			states[id] = out.State
			return nil
		})
	}
	return states, g.Wait()
}

func (b *httpBank) head(ctx context.Context) (jetstream.Position, error) {
	var out struct {
		Position jetstream.Position `json:"position"`
	}
	_, err := b.call(ctx, http.MethodGet, "/api/status", "", nil, &out)
	return out.Position, err
}

func (b *httpBank) balance(ctx context.Context, id string, after jetstream.Position) (int64, error) {
	var out struct {
		BalanceCents int64 `json:"balanceCents"`
	}
	_, err := b.call(ctx, http.MethodGet, "/api/accounts/"+id+"?after="+url.QueryEscape(after.String()), "", nil, &out)
	return out.BalanceCents, err
}

func (b *httpBank) books(ctx context.Context) (books, error) {
	var out struct {
		Invariant struct {
			DepositedCents int64 `json:"depositedCents"`
			BalancesCents  int64 `json:"balancesCents"`
			UnderWayCents  int64 `json:"underWayCents"`
			Holds          bool  `json:"holds"`
		} `json:"invariant"`
	}
	_, err := b.call(ctx, http.MethodGet, "/api/status", "", nil, &out)
	i := out.Invariant
	return books{deposited: i.DepositedCents, balances: i.BalancesCents, underWay: i.UnderWayCents, holds: i.Holds}, err
}

// call sends one request and reads its answer.
func (b *httpBank) call(ctx context.Context, method, path, key string, in, out any) (status int, err error) {
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return 0, err
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, b.base+path, body)
	if err != nil {
		return 0, err
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	resp, err := b.client.Do(req)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", errAgain, err)
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err != nil {
		return resp.StatusCode, fmt.Errorf("%w: %s %s: %w", errAgain, method, path, err)
	}
	switch resp.StatusCode {
	case http.StatusOK, http.StatusCreated, http.StatusAccepted:
		if err := json.Unmarshal(data, out); err != nil {
			return resp.StatusCode, fmt.Errorf("%s %s: %w", method, path, err)
		}
		return resp.StatusCode, nil
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusBadGateway,
		http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return resp.StatusCode, fmt.Errorf("%w: %s %s: %s: %s", errAgain, method, path, resp.Status, clip(data))
	case http.StatusConflict:
		err := fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, clip(data))
		var problem struct {
			Code string `json:"code"`
		}
		if json.Unmarshal(data, &problem) == nil && problem.Code == "conflict" {
			err = fmt.Errorf("%w: %w", errAgain, err) // others came first
		}
		return resp.StatusCode, err
	default:
		return resp.StatusCode, fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, clip(data))
	}
}

func clip(data []byte) string { return strings.TrimSpace(string(data[:min(len(data), 300)])) }
