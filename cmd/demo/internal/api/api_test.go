package api_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/rossby-go/rossby/cmd/demo/internal/api"
	"github.com/rossby-go/rossby/internal/natstest"
)

func TestTransfer(t *testing.T) {
	t.Parallel()
	b := newBank(t)
	from, to := b.open(15000), b.open(30000)
	r := b.want(202, "POST", "/api/transfers", transferOf(from, to, 8000))
	id := r.str("transferId")
	if got := r.header.Get("Location"); got != "/api/transfers/"+id {
		t.Errorf("Location %q", got)
	}
	// The position is that of the creation: the view has it, whatever its state.
	if v := b.want(200, "GET", "/api/transfers/"+id+"?after="+url.QueryEscape(r.str("position")), ""); v.num("cents") != 8000 {
		t.Error(v.text)
	}
	b.ended(id, "COMPLETED")
	// The two views may stand together where they were before the transfer.
	settled := b.want(200, "GET", "/api/status", "").str("position")
	natstest.Eventually(t, "settled books", func() error {
		s := b.want(200, "GET", "/api/status", "")
		i, _ := s.body["invariant"].(object)
		if i["settled"] != true || i["holds"] != true || i["accountsCents"] != 45000.0 || i["depositedCents"] != 45000.0 {
			return errors.New(s.text)
		}
		return nil
	})
	for account, cents := range map[string]int64{from: 7000, to: 38000} {
		after := "?after=" + url.QueryEscape(settled)
		if v := b.want(200, "GET", "/api/accounts/"+account+after, ""); v.num("balanceCents") != cents || v.body["active"] != true {
			t.Error(v.text)
		}
		h := b.want(200, "GET", "/api/accounts/"+account+"/history"+after, "")
		rows, _ := h.body["history"].([]any)
		types := make([]string, 0, len(rows))
		for _, row := range rows {
			o, _ := row.(object)
			types = append(types, fmt.Sprint(o["type"]))
		}
		if len(types) != 3 || types[0] != "opened" || !slices.Contains(types, "transfer") {
			t.Error(h.text)
		}
	}
	id = b.want(202, "POST", "/api/transfers", transferOf(from, to, 20000)).str("transferId")
	b.ended(id, "FAILED_DUE_TO_INSUFFICIENT_FUNDS")
	natstest.Eventually(t, "list of transfers", func() error {
		r := b.do("GET", "/api/transfers?limit=1", "") // they may be being read anew
		list, _ := r.body["transfers"].([]any)
		if len(list) != 1 || !strings.Contains(r.text, id) || !strings.Contains(r.text, "INSUFFICIENT") {
			return errors.New(r.text)
		}
		return nil
	})
}

func TestCustomers(t *testing.T) {
	t.Parallel()
	b := newBank(t)
	r := b.want(201, "POST", "/api/customers", `{"customerId":"chris","name":"Chris","email":"Chris@Example.com","phone":"1","address":"2"}`)
	if r.str("customerId") != "chris" {
		t.Fatal(r.text)
	}
	// The owner is known although the view may not be there yet.
	own := b.want(201, "POST", "/api/accounts", `{"accountId":"own","customerId":"chris","title":"mine","initialCents":5}`)
	if own.str("accountId") != "own" || own.num("balanceCents") != 5 {
		t.Error(own.text)
	}
	other := b.open(1)
	body := fmt.Sprintf(`{"accountId":%q,"title":"rent","owner":"Mary"}`, other)
	r = b.want(200, "POST", "/api/customers/chris/toaccounts", body)
	for range 2 { // twice changes nothing
		r = b.want(200, "POST", "/api/customers/chris/toaccounts", body)
	}
	v := b.want(200, "GET", "/api/customers/chris?after="+url.QueryEscape(r.str("position")), "")
	if want := fmt.Sprintf(`"accounts":["own"],"toAccounts":[{"accountId":%q,"title":"rent","owner":"Mary"}]`, other); !strings.Contains(v.text, want) {
		t.Errorf("%s, want %s", v.text, want)
	}
	r = b.want(200, "DELETE", "/api/customers/chris/toaccounts/"+other, "")
	v = b.want(200, "GET", "/api/customers/chris?after="+url.QueryEscape(r.str("position")), "")
	if !strings.Contains(v.text, `"toAccounts":[]`) {
		t.Error(v.text)
	}
	for part, n := range map[string]int{"": 1, "example": 1, "CHRIS@": 1, "nobody": 0} {
		r := b.want(200, "GET", "/api/customers?email="+url.QueryEscape(part), "")
		if list, ok := r.body["customers"].([]any); !ok || len(list) != n {
			t.Errorf("%q: %s", part, r.text)
		}
	}
	r = b.want(200, "DELETE", "/api/accounts/own", "")
	again := b.want(200, "DELETE", "/api/accounts/own", "")
	if again.text != r.text {
		t.Errorf("deleted again: %s, first %s", again.text, r.text)
	}
	after := "?after=" + url.QueryEscape(r.str("position"))
	if v := b.want(200, "GET", "/api/accounts/own"+after, ""); v.body["active"] != false || v.num("balanceCents") != 5 {
		t.Error(v.text)
	}
	if v := b.want(200, "GET", "/api/customers/chris"+after, ""); !strings.Contains(v.text, `"accounts":[]`) {
		t.Error(v.text)
	}
	list := b.want(200, "GET", "/api/accounts"+after, "")
	if l, _ := list.body["accounts"].([]any); len(l) != 2 || strings.Contains(list.text, "history") {
		t.Error(list.text)
	}
	if l, _ := b.want(200, "GET", "/api/accounts?limit=1", "").body["accounts"].([]any); len(l) != 1 {
		t.Error(l)
	}
}

func TestIdempotencyKey(t *testing.T) {
	t.Parallel()
	b := newBank(t)
	b.want(201, "POST", "/api/customers", `{"customerId":"c","name":"n","email":"a@b"}`)
	from, to := b.open(100), b.open(0)
	for name, test := range map[string]struct {
		status      int
		path        string
		body, other string
	}{
		"Customer":  {201, "/api/customers", `{"name":"n","email":"a@b"}`, `{"name":"m","email":"a@b"}`},
		"Account":   {201, "/api/accounts", `{"title":"t","initialCents":9}`, `{"title":"t","initialCents":8}`},
		"AccountID": {201, "/api/accounts", `{"accountId":"mine","title":"t"}`, `{"accountId":"mine","title":"u"}`},
		"Transfer":  {202, "/api/transfers", transferOf(from, to, 5), transferOf(from, to, 6)},
		"ToAccount": {200, "/api/customers/c/toaccounts", `{"accountId":"z","title":"t","owner":"o"}`, `{"accountId":"y","title":"t","owner":"o"}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := b.within(t)
			key := "key-of-" + name
			first := b.want(test.status, "POST", test.path, test.body, "Idempotency-Key", key)
			if first.header.Get("Idempotent-Replayed") != "" {
				t.Error("the first is no replay")
			}
			for _, k := range []string{key, `"` + key + `"`} {
				again := b.want(test.status, "POST", test.path, test.body, "Idempotency-Key", k)
				if again.text != first.text || again.header.Get("Idempotent-Replayed") != "true" {
					t.Errorf("again: %s, %v; first: %s", again.text, again.header, first.text)
				}
			}
			if p := b.want(409, "POST", test.path, test.other, "Idempotency-Key", key); p.str("code") != "other-payload" {
				t.Error(p.text)
			}
		})
	}
	if p := b.want(409, "POST", "/api/customers", `{"customerId":"c","name":"n","email":"a@b"}`); p.str("code") != "exists" {
		t.Error(p.text)
	}
}

func TestETag(t *testing.T) {
	t.Parallel()
	b := newBank(t)
	r := b.want(201, "POST", "/api/accounts", `{"title":"x","initialCents":100}`)
	path := "/api/accounts/" + r.str("accountId")
	tag := b.want(200, "GET", path+"?after="+url.QueryEscape(r.str("position")), "").header.Get("ETag")
	if tag == "" {
		t.Fatal("no ETag")
	}
	same := b.want(304, "GET", path, "", "If-None-Match", `"other", `+tag)
	if same.text != "" || same.header.Get("Rossby-Position") == "" {
		t.Errorf("%q %v", same.text, same.header)
	}
	gone := b.want(200, "DELETE", path, "")
	b.want(200, "GET", path+"?after="+url.QueryEscape(gone.str("position")), "", "If-None-Match", tag)
	b.want(304, "GET", path, "", "If-None-Match", "*")
}

func TestStatusAndHealth(t *testing.T) {
	t.Parallel()
	b := newBank(t)
	b.want(200, "GET", "/healthz", "")
	natstest.Eventually(t, "ready", func() error {
		if r := b.do("GET", "/readyz", ""); r.status != 200 {
			return errors.New(r.text)
		}
		return nil
	})
	var s api.Status
	r := b.want(200, "GET", "/api/status", "")
	if err := json.Unmarshal([]byte(r.text), &s); err != nil {
		t.Fatal(err)
	}
	if len(s.Followers) != 1 || s.Followers[0].Lag != 3 || s.Notifications.Received != 7 || s.Durability.Replicas != 1 || !s.Invariant.Holds {
		t.Error(r.text)
	}
	for _, field := range []string{
		"name", "kind", "state", "owner", "position", "head", "lag", "lagSeconds", "blocked", "lastError",
	} {
		if !strings.Contains(r.text, `"`+field+`":`) {
			t.Errorf("a follower has no %s: %s", field, r.text)
		}
	}
	if page := b.want(200, "GET", "/", ""); !strings.Contains(page.header.Get("Content-Type"), "text/html") {
		t.Error(page.header)
	}
}

func TestConfigNames(t *testing.T) {
	t.Parallel()
	_, err := api.New(api.Config{})
	for _, field := range []string{
		"Store", "Accounts", "Customers", "Transfers", "AccountViews", "CustomerViews", "TransferViews", "Ledger",
		"Followers", "Durability", "Notifications",
	} {
		if err == nil || !strings.Contains(err.Error(), "Config."+field+" is missing") {
			t.Errorf("%s: %v", field, err)
		}
	}
}
