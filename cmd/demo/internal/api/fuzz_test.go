package api_test

import (
	"strings"
	"testing"

	"github.com/rossby-go/rossby/internal/httpfuzz"
)

// FuzzRequest: every request is answered as HTTP wants it, and what is wrong with it
// is said as the sender's fault.
func FuzzRequest(f *testing.F) {
	b := newBank(f)
	f.Add("POST", "/api/accounts", `{"title":"x","initialCents":5}`, "key", "")
	f.Add("POST", "/api/transfers", transferOf("a", "b", 5), `"k"`, "")
	f.Add("POST", "/api/transfers", `{"cents":-1}`, `"`, "")
	f.Add("POST", "/api/customers", `{"name":"`+strings.Repeat("a", 1<<12)+`"}`, "", "")
	f.Add("POST", "/api/customers/c1/toaccounts", `{}{}`, "\\", "")
	f.Add("DELETE", "/api/customers/c1/toaccounts/a%2Fb", "", "", "")
	f.Add("GET", "/api/accounts?after=%00&limit=0", "", "", "nonsense")
	f.Add("GET", "/api/accounts/a1/history", "", "", "")
	f.Add("GET", "/api/customers?name=*", "", "", "")
	f.Add("GET", "/events", "", "", "")
	f.Add("POST", "/api/followers/x/pause", strings.Repeat("[", 1<<12), "", "")
	f.Add("GET", "//api/../", "", "", "")
	f.Fuzz(func(t *testing.T, method, path, body, key, position string) {
		httpfuzz.Request(t, b.api, method, path, body, map[string]string{
			"Content-Type": "application/json", "Idempotency-Key": key, "Rossby-Position": position,
		})
	})
}
