package acceptance_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"sync/atomic"
	"testing"
)

// unique numbers keys and ids apart.
var unique atomic.Int64

// suite is what a bank must do, however it is deployed. Names begin with the
// cases of Eventuate's tests that they stand for.
func suite(t *testing.T, c *client) {
	t.Helper()
	for _, test := range []struct {
		name string
		run  func(*testing.T, *client)
	}{
		{"B1-TransferMoney", transferMoney},
		{"B2-InsufficientFunds", insufficientFunds},
		{"B3-ViewsAgreeInCents", viewsAgree},
		{"B4-HistoryAndDuplicates", historyAndDuplicates},
		{"B5-CustomerView", customerViewShows},
		{"B6-TransferOverHTTP", transferOverHTTP},
		{"B6-AccountsOfACustomer", accountsOfACustomer},
		{"B6-CustomersAndToAccounts", customersAndToAccounts},
		{"B7-ServicesAnswer", servicesAnswer},
		{"UnknownAccounts", unknownAccounts},
		{"DeletedAccounts", deletedAccounts},
		{"BadTransfers", badTransfers},
		{"BadRequests", badRequests},
		{"ReadYourWrites", readYourWrites},
		{"Notifications", notifications},
		{"Metrics", metricsAnswer},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.run(t, c)
		})
	}
}

const (
	completed      = "COMPLETED"
	failedFunds    = "FAILED_DUE_TO_INSUFFICIENT_FUNDS"
	failedNotFound = "FAILED_DUE_TO_ACCOUNT_NOT_FOUND"
	failedDeleted  = "FAILED_DUE_TO_ACCOUNT_DELETED"
	failedTimeout  = "FAILED_DUE_TO_TIMEOUT"
	nobody         = "nobody-s-account"
)

// The amounts of Eventuate's tests, in cents.
const (
	firstBalance     = 150_00
	secondBalance    = 300_00
	transferAmount   = 80_00
	impossibleAmount = 200_00
)

func transferMoney(t *testing.T, c *client) {
	from, to := c.open(t, firstBalance), c.open(t, secondBalance)
	id := c.transfer(t, from, to, transferAmount)
	c.ended(t, id, completed)
	c.balance(t, from, firstBalance-transferAmount)
	c.balance(t, to, secondBalance+transferAmount)
}

func insufficientFunds(t *testing.T, c *client) {
	from, to := c.open(t, firstBalance), c.open(t, secondBalance)
	id := c.transfer(t, from, to, impossibleAmount)
	c.ended(t, id, failedFunds)
	c.balance(t, from, firstBalance)
	c.balance(t, to, secondBalance)
}

func viewsAgree(t *testing.T, c *client) {
	from, to := c.open(t, 15000), c.open(t, 30000)
	c.ended(t, c.transfer(t, from, to, 8000), completed)
	c.balance(t, from, 7000)
	c.balance(t, to, 38000)
}

func historyAndDuplicates(t *testing.T, c *client) {
	from := fmt.Sprintf("twice-%d", unique.Add(1))
	body := object{"title": "twice", "initialCents": 500, "accountId": from}
	first, err := c.do(t.Context(), "POST", "/api/accounts", "key-of-"+from, body)
	if err != nil || first.status != 201 {
		t.Fatal(first.status, string(first.body), err)
	}
	again, err := c.do(t.Context(), "POST", "/api/accounts", "key-of-"+from, body)
	if err != nil || again.status != 201 || string(again.body) != string(first.body) {
		t.Fatal(again.status, string(again.body), err)
	}
	to := c.open(t, 0)
	id := c.transfer(t, from, to, 200)
	c.ended(t, id, completed)
	for account, want := range map[string]struct {
		change  string
		cents   int64
		balance int64
		rows    int
	}{from: {"debited", -200, 300, 3}, to: {"credited", 200, 200, 3}} {
		c.balance(t, account, want.balance)
		shows(t, c, "/api/accounts/"+account+"/history", "both rows of the transfer", func(v struct {
			History []historyEntry `json:"history"`
		}) bool {
			h := v.History
			return len(h) == want.rows && h[0].Type == "opened" &&
				slices.ContainsFunc(h, func(e historyEntry) bool {
					return e.Type == want.change && e.TransferID == id && e.Cents == want.cents && e.EventID != ""
				}) &&
				slices.ContainsFunc(h, func(e historyEntry) bool {
					return e.Type == "transfer" && e.TransferID == id && e.State == completed &&
						e.FromAccountID == from && e.ToAccountID == to
				})
		})
	}
}

func newCustomer(t *testing.T, c *client) (id string, email string) {
	t.Helper()
	email = fmt.Sprintf("chris-%d@example.com", unique.Add(1))
	r := call[customerReply](t, c, 201, "POST", "/api/customers",
		object{"name": "Chris", "email": email, "phone": "555", "address": "1 High Street"})
	return r.CustomerID, email
}

func (c *client) customer(t *testing.T, id string, what string, check func(customerView) bool) {
	t.Helper()
	shows(t, c, "/api/customers/"+id, what, check)
}

func customerViewShows(t *testing.T, c *client) {
	id, email := newCustomer(t, c)
	account := c.open(t, 100)
	call[positionReply](
		t,
		c,
		200,
		"POST",
		"/api/customers/"+id+"/toaccounts",
		object{"accountId": account, "title": "rent", "owner": "Mary"},
	)
	c.customer(t, id, "customer with a to-account", func(v customerView) bool {
		return v.CustomerID == id && v.Name == "Chris" && v.Email == email && v.Phone == "555" && v.Address == "1 High Street" &&
			len(v.ToAccounts) == 1 && v.ToAccounts[0].AccountID == account &&
			v.ToAccounts[0].Title == "rent" &&
			v.ToAccounts[0].Owner == "Mary"
	})
}

func transferOverHTTP(t *testing.T, c *client) {
	from, to := c.open(t, 50000), c.open(t, 10000)
	id := c.transfer(t, from, to, 15000)
	c.ended(t, id, completed)
	c.balance(t, from, 35000)
	c.balance(t, to, 25000)
	shows(t, c, "/api/accounts/"+from, "the transfer", func(v accountView) bool {
		return slices.ContainsFunc(v.History, func(e historyEntry) bool {
			return e.TransferID == id && e.Type == "transfer" && e.State == completed
		})
	})
}

func accountsOfACustomer(t *testing.T, c *client) {
	customer, _ := newCustomer(t, c)
	other, _ := newCustomer(t, c)
	c.customer(t, customer, "customer", func(customerView) bool { return true })
	account := call[accountReply](
		t,
		c,
		201,
		"POST",
		"/api/accounts",
		object{"customerId": customer, "title": "own", "initialCents": 700},
	).AccountID
	c.customer(
		t,
		customer,
		"own account",
		func(v customerView) bool { return slices.Equal(v.Accounts, []string{account}) },
	)
	call[positionReply](
		t,
		c,
		200,
		"POST",
		"/api/customers/"+other+"/toaccounts",
		object{"accountId": account, "title": "x", "owner": "y"},
	)
	c.customer(t, other, "linked account", func(v customerView) bool { return len(v.ToAccounts) == 1 })
	for range 2 { // deleting again changes nothing
		call[positionReply](t, c, 200, "DELETE", "/api/accounts/"+account, nil)
	}
	c.customer(t, customer, "own account unlinked", func(v customerView) bool { return len(v.Accounts) == 0 })
	c.customer(t, other, "deleted account unlinked", func(v customerView) bool { return len(v.ToAccounts) == 0 })
	shows(t, c, "/api/accounts/"+account, "an inactive account", func(v accountView) bool {
		return !v.Active && v.BalanceCents == 700 && len(v.History) == 2 && v.History[1].Type == "deleted"
	})
}

func customersAndToAccounts(t *testing.T, c *client) {
	id, email := newCustomer(t, c)
	shows(t, c, "/api/customers?email="+url.QueryEscape(email), "the customer", func(v struct {
		Customers []customerView `json:"customers"`
	}) bool {
		return len(v.Customers) == 1 && v.Customers[0].CustomerID == id
	})
	one, two := c.open(t, 0), c.open(t, 0)
	for _, account := range []string{one, two} {
		call[positionReply](
			t,
			c,
			200,
			"POST",
			"/api/customers/"+id+"/toaccounts",
			object{"accountId": account, "title": "t", "owner": "o"},
		)
	}
	c.customer(t, id, "two to-accounts", func(v customerView) bool { return len(v.ToAccounts) == 2 })
	call[positionReply](t, c, 200, "DELETE", "/api/customers/"+id+"/toaccounts/"+one, nil)
	c.customer(
		t,
		id,
		"one to-account",
		func(v customerView) bool { return len(v.ToAccounts) == 1 && v.ToAccounts[0].AccountID == two },
	)
}

func servicesAnswer(t *testing.T, c *client) {
	for _, path := range []string{"/healthz", "/readyz"} {
		if a, err := c.do(t.Context(), "GET", path, "", nil); err != nil || a.status != 200 {
			t.Fatal(path, a.status, err)
		}
	}
	eventually(t.Context(), t, "every follower has an owner", func() error {
		s := call[statusReply](t, c, 200, "GET", "/api/status", nil)
		var names []string
		for _, f := range s.Followers {
			if f.Owner != "" {
				names = append(names, f.Name)
			}
		}
		for _, want := range []string{"accounts", "customers", "transfers", "ledger", "money-transfer", "notifications", "_timers-transfer"} {
			if !slices.Contains(names, want) {
				return fmt.Errorf("%s is not among %v", want, names)
			}
		}
		return nil
	})
}

func unknownAccounts(t *testing.T, c *client) {
	account := c.open(t, 1000)
	c.ended(t, c.transfer(t, nobody, account, 10), failedNotFound)
	c.ended(t, c.transfer(t, account, nobody, 10), failedNotFound)
	c.balance(t, account, 1000) // debited and refunded
	shows(t, c, "/api/accounts/"+account, "a refund", func(v accountView) bool {
		return slices.ContainsFunc(v.History, func(e historyEntry) bool { return e.Type == "refunded" && e.Cents == 10 })
	})
}

func deletedAccounts(t *testing.T, c *client) {
	gone, account := c.open(t, 500), c.open(t, 1000)
	call[positionReply](t, c, 200, "DELETE", "/api/accounts/"+gone, nil)
	c.ended(t, c.transfer(t, gone, account, 10), failedDeleted)
	c.ended(t, c.transfer(t, account, gone, 10), failedDeleted)
	c.balance(t, account, 1000)
	c.balance(t, gone, 500)
}

func badTransfers(t *testing.T, c *client) {
	account, other := c.open(t, 1000), c.open(t, 1000)
	for code, body := range map[string][]object{
		"invalid-amount": {
			{"fromAccountId": account, "toAccountId": other, "cents": 0},
			{"fromAccountId": account, "toAccountId": other, "cents": -5},
		},
		"same-account": {{"fromAccountId": account, "toAccountId": account, "cents": 5}},
	} {
		for _, b := range body {
			if p := call[problem](t, c, http.StatusUnprocessableEntity, "POST", "/api/transfers", b); p.Code != code ||
				p.Status != http.StatusUnprocessableEntity {
				t.Errorf("%v: %+v", b, p)
			}
		}
	}
	if p := call[problem](t, c, http.StatusUnprocessableEntity, "POST", "/api/accounts", object{"title": "x", "initialCents": -1}); p.Code != "invalid-amount" {
		t.Errorf("%+v", p)
	}
}

func badRequests(t *testing.T, c *client) {
	for _, r := range []struct {
		status             int
		method, path, body string
	}{
		{http.StatusBadRequest, "POST", "/api/transfers", `{"fromAccountId":`},
		{http.StatusBadRequest, "POST", "/api/transfers", `{"cents":"many"}`},
		{http.StatusBadRequest, "POST", "/api/accounts", `{"title":"x","initialCents":1.5}`},
		{http.StatusBadRequest, "POST", "/api/accounts", `{"title":"x","initialCents":1,"accountId":"a.b"}`},
		{http.StatusNotFound, "GET", "/api/accounts/" + nobody, ""},
		{http.StatusNotFound, "GET", "/api/transfers/" + nobody, ""},
		{http.StatusNotFound, "GET", "/api/customers/" + nobody, ""},
		{http.StatusNotFound, "DELETE", "/api/accounts/" + nobody, ""},
		{http.StatusBadRequest, "GET", "/api/accounts/" + nobody + "?after=rubbish!", ""},
	} {
		a, err := c.send(t.Context(), r.method, r.path, fmt.Sprintf("bad-%d", unique.Add(1)), []byte(r.body))
		if err != nil {
			t.Fatal(err)
		}
		var p problem
		if err := json.Unmarshal(a.body, &p); err != nil || a.status != r.status || p.Status != r.status ||
			p.Title == "" ||
			a.header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s %s %s: %d %s", r.method, r.path, r.body, a.status, a.body)
		}
	}
	id := fmt.Sprintf("conflict-%d", unique.Add(1))
	for i, want := range []int{201, http.StatusConflict} {
		body := object{"accountId": id, "title": "x", "initialCents": i}
		a, err := c.do(t.Context(), "POST", "/api/accounts", fmt.Sprintf("%s-%d", id, i), body)
		if err != nil || a.status != want {
			t.Errorf("account %s again: %d %s %v", id, a.status, a.body, err)
		}
	}
	// The same key for another request.
	a, err := c.do(
		t.Context(),
		"POST",
		"/api/accounts",
		id+"-0",
		object{"accountId": id, "title": "x", "initialCents": 77},
	)
	if err != nil || a.status != http.StatusConflict {
		t.Errorf("same key, other payload: %d %s %v", a.status, a.body, err)
	}
}

func readYourWrites(t *testing.T, c *client) {
	for i := range int64(20) {
		r := call[accountReply](t, c, 201, "POST", "/api/accounts", object{"title": "mine", "initialCents": i})
		v := call[accountView](
			t,
			c,
			200,
			"GET",
			"/api/accounts/"+r.AccountID+"?after="+url.QueryEscape(r.Position),
			nil,
		)
		if v.BalanceCents != i || r.BalanceCents != i {
			t.Fatalf("%+v %+v", r, v)
		}
	}
}

// notifications waits for the record that the gateway makes after the service
// took the notification.
func notifications(t *testing.T, c *client) {
	from, to := c.open(t, firstBalance), c.open(t, secondBalance)
	ids := []string{c.transfer(t, from, to, 1), c.transfer(t, from, to, 2*firstBalance)}
	for _, id := range ids {
		shows(t, c, "/api/transfers/"+id, "a notification", func(v transferView) bool { return v.Notified })
	}
}

// books waits until no money is under way and the books are those of the last event,
// and checks that none was made or lost.
func books(t *testing.T, c *client) {
	t.Helper()
	eventually(t.Context(), t, "settled books", func() error {
		r := call[statusReply](t, c, 200, "GET", "/api/status", nil)
		s := r.Invariant
		if !s.Holds {
			t.Fatalf("the invariant is broken: %+v", s)
		}
		if s.UnderWayCents != 0 || s.AccountsCents != s.DepositedCents ||
			s.Position != r.Position || s.AccountsPosition != r.Position {
			return fmt.Errorf("%+v, the store ends at %s", s, r.Position)
		}
		return nil
	})
}
