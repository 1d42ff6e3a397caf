package acceptance_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/rossby-go/rossby/internal/natstest"
)

// client talks to the bank's HTTP API as any program would.
type client struct {
	base string
	http *http.Client
}

func newClient(base string) *client {
	return &client{base: base, http: &http.Client{Timeout: natstest.Patience}}
}

// problem is an RFC 9457 answer.
type problem struct {
	Status int    `json:"status"`
	Title  string `json:"title"`
	Detail string `json:"detail"`
	Code   string `json:"code"`
}

type answer struct {
	status int
	header http.Header
	body   []byte
}

// do sends a request. One with a key is sent again, with the same key,
// until the bank answers for good, which is what the keys are for.
func (c *client) do(ctx context.Context, method, path, key string, body any) (answer, error) {
	var data []byte
	if body != nil {
		var err error
		if data, err = json.Marshal(body); err != nil {
			return answer{}, err
		}
	}
	return c.send(ctx, method, path, key, data)
}

func (c *client) send(ctx context.Context, method, path, key string, data []byte) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	repeatable := key != "" || method == http.MethodGet
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		a, err := c.once(ctx, method, path, key, data)
		again := err != nil || a.status == http.StatusServiceUnavailable || a.status == http.StatusTooManyRequests ||
			a.status == http.StatusGatewayTimeout || a.status == http.StatusBadGateway
		if !again || !repeatable {
			return a, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return a, errors.Join(err, fmt.Errorf("%s %s: %d %s", method, path, a.status, a.body), ctx.Err())
		}
	}
}

func (c *client) once(ctx context.Context, method, path, key string, data []byte) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(data))
	if err != nil {
		return answer{}, err
	}
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	if data != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, body}, err
}

// call wants a status and returns the body as T.
func call[T any](t testing.TB, c *client, want int, method, path string, body any) T {
	t.Helper()
	key := ""
	if method != http.MethodGet {
		key = fmt.Sprintf("%s-%d", t.Name(), unique.Add(1))
	}
	a, err := c.do(t.Context(), method, path, key, body)
	if err != nil {
		t.Fatal(err)
	}
	var out T
	if a.status != want {
		t.Fatalf("%s %s: %d, want %d: %s", method, path, a.status, want, a.body)
	}
	if len(a.body) > 0 {
		if err := json.Unmarshal(a.body, &out); err != nil {
			t.Fatalf("%s %s: %v: %s", method, path, err, a.body)
		}
	}
	return out
}

type (
	accountReply struct {
		AccountID    string `json:"accountId"`
		BalanceCents int64  `json:"balanceCents"`
		Position     string `json:"position"`
	}
	accountView struct {
		AccountID    string         `json:"accountId"`
		CustomerID   string         `json:"customerId"`
		Title        string         `json:"title"`
		BalanceCents int64          `json:"balanceCents"`
		Active       bool           `json:"active"`
		History      []historyEntry `json:"history"`
	}
	historyEntry struct {
		EventID       string `json:"eventId"`
		Type          string `json:"type"`
		Cents         int64  `json:"cents"`
		BalanceCents  int64  `json:"balanceCents"`
		TransferID    string `json:"transferId"`
		FromAccountID string `json:"fromAccountId"`
		ToAccountID   string `json:"toAccountId"`
		State         string `json:"state"`
	}
	transferReply struct {
		TransferID string `json:"transferId"`
		Position   string `json:"position"`
	}
	transferView struct {
		TransferID string `json:"transferId"`
		State      string `json:"state"`
		Cents      int64  `json:"cents"`
		Notified   bool   `json:"notified"`
	}
	customerReply struct {
		CustomerID string `json:"customerId"`
		Position   string `json:"position"`
	}
	customerView struct {
		CustomerID string   `json:"customerId"`
		Name       string   `json:"name"`
		Email      string   `json:"email"`
		Phone      string   `json:"phone"`
		Address    string   `json:"address"`
		Accounts   []string `json:"accounts"`
		ToAccounts []struct {
			AccountID string `json:"accountId"`
			Title     string `json:"title"`
			Owner     string `json:"owner"`
		} `json:"toAccounts"`
	}
	positionReply struct {
		Position string `json:"position"`
	}
	statusReply struct {
		Position  string `json:"position"`
		Invariant struct {
			Position         string `json:"position"`
			AccountsPosition string `json:"accountsPosition"`

			DepositedCents int64 `json:"depositedCents"`
			BalancesCents  int64 `json:"balancesCents"`
			UnderWayCents  int64 `json:"underWayCents"`
			AccountsCents  int64 `json:"accountsCents"`
			Holds          bool  `json:"holds"`
			Settled        bool  `json:"settled"`
		} `json:"invariant"`
		Followers []struct {
			Name  string `json:"name"`
			Kind  string `json:"kind"`
			State string `json:"state"`
			Owner string `json:"owner"`
			Lag   uint64 `json:"lag"`
		} `json:"followers"`
	}
)

type object = map[string]any

func (c *client) open(t testing.TB, cents int64) string {
	t.Helper()
	return call[accountReply](
		t,
		c,
		201,
		"POST",
		"/api/accounts",
		object{"title": "an account", "initialCents": cents},
	).AccountID
}

func (c *client) transfer(t testing.TB, from, to string, cents int64) string {
	t.Helper()
	return call[transferReply](t, c, 202, "POST", "/api/transfers",
		object{"fromAccountId": from, "toAccountId": to, "cents": cents, "description": "test"}).TransferID
}

// shows waits until a GET answers 200 with what the check wants: a view may be a
// moment behind.
func shows[T any](t testing.TB, c *client, path, what string, check func(T) bool) {
	t.Helper()
	eventually(t.Context(), t, path+" shows "+what, func() error {
		a, err := c.do(t.Context(), "GET", path, "", nil)
		if err != nil {
			return err
		}
		var v T
		if err := json.Unmarshal(a.body, &v); err != nil {
			return err
		}
		if a.status != http.StatusOK || !check(v) {
			return fmt.Errorf("%d %s", a.status, a.body)
		}
		return nil
	})
}

// ended waits until the transfer's view shows the state.
func (c *client) ended(t testing.TB, id, state string) {
	t.Helper()
	shows(t, c, "/api/transfers/"+id, state, func(v transferView) bool { return v.State == state })
}

// balance waits until the account's view shows the balance.
func (c *client) balance(t testing.TB, id string, cents int64) {
	t.Helper()
	shows(t, c, "/api/accounts/"+id, fmt.Sprintf("%d cents", cents), func(v accountView) bool { return v.BalanceCents == cents })
}
