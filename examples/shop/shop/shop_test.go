package shop_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/aggregate/aggregatetest"
	"github.com/rossby-go/rossby/aggregate/saga"
	"github.com/rossby-go/rossby/examples/shop/shop"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
	"github.com/rossby-go/rossby/projection/projectiontest"
)

func TestMain(m *testing.M) { natstest.VerifyTestMain(m) }

func TestDecisions(t *testing.T) {
	t.Parallel()
	aggregatetest.Given(t, shop.Stocks, shop.Filled{Amount: 3}).
		When(shop.Take{Order: "o1", Amount: 2}).Then(shop.Taken{Order: "o1", Amount: 2}).
		When(shop.Take{Order: "o2", Amount: 2}).Rejected("sold-out").
		When(shop.Return{Order: "o1", Amount: 2}).Then(shop.Returned{Order: "o1", Amount: 2}).
		State(shop.Supply{Left: 3})
	aggregatetest.Given(t, shop.Wallets, shop.Filled{Amount: 100}).
		When(shop.Take{Order: "o1", Amount: 70}).Then(shop.Taken{Order: "o1", Amount: 70}).
		When(shop.Take{Order: "o2", Amount: 70}).Rejected("no-money").
		When(shop.Return{Order: "o1", Amount: 70}).Then(shop.Returned{Order: "o1", Amount: 70}).
		State(shop.Supply{Left: 100})
	aggregatetest.Given(t, shop.Orders).
		When(shop.Place{Customer: "ann"}).Rejected("invalid").
		When(shop.Place{Customer: "ann", Pieces: 1}).Then(shop.Placed{Customer: "ann", Pieces: 1}).
		When(shop.Pack{}).Then(shop.Packed{Customer: "ann"}).
		When(shop.Report{Tracking: "1"}).Then(shop.Shipped{Tracking: "1"}).
		When(shop.Report{Problem: "lost"}).Then(shop.Undelivered{Reason: "lost"})
}

func TestOrdersView(t *testing.T) {
	t.Parallel()
	placed := shop.Placed{Customer: "ann", Product: "tea", Pieces: 1, Cents: 5}
	projectiontest.New(t, shop.OrdersView).
		Given(shop.OrderEvents, "o1", placed, shop.Packed{}, shop.Shipped{Tracking: "T1"}).
		Given(shop.OrderEvents, "o2", placed, shop.Cancelled{Reason: "sold out"}).
		Given(shop.OrderEvents, "o3", placed, shop.Packed{}).
		Then(map[string]shop.OrderView{
			"o1": {Customer: "ann", Product: "tea", Cents: 5, State: "shipped", Tracking: "T1"},
			"o2": {Customer: "ann", Product: "tea", Cents: 5, State: "cancelled", Reason: "sold out"},
			"o3": {Customer: "ann", Product: "tea", Cents: 5, State: "packed"},
		}).
		Finds("customer", "ann", "o1", "o2", "o3").
		Finds("state", "packed", "o3")
}

// TestCheckout: every way through the saga, without a server; each event is handled
// twice, as after a crash.
func TestCheckout(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		wallet, stock int64
		report        shop.Report
		want          saga.Phase
		code          string
	}{
		"shipped":     {100, 5, shop.Report{Tracking: "T1"}, saga.Completed, ""},
		"sold out":    {100, 1, shop.Report{}, saga.Compensated, "sold-out"},
		"no money":    {10, 5, shop.Report{}, saga.Compensated, "no-money"},
		"undelivered": {100, 5, shop.Report{Problem: "no such street"}, saga.Compensated, "undelivered"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := aggregatetest.NewStore(t)
			orders := aggregatetest.NewRepository(store, shop.Orders)
			stocks := aggregatetest.NewRepository(store, shop.Stocks)
			wallets := aggregatetest.NewRepository(store, shop.Wallets)
			checkout := shop.Checkout(orders, stocks, wallets)
			instances := aggregatetest.NewRepository(store, checkout.Type())
			store.Run("checkout", checkout.Handlers(instances, shop.Reports()...)...)
			store.Run("carrier", aggregate.On(shop.OrderEvents, func(
				ctx context.Context, _ shop.Packed, m jetstream.Meta, do *aggregate.Do,
			) error {
				_, err := do.Update(ctx, orders, m.ID, c.report)
				return err
			}))
			store.Append(shop.Stocks.Schema(), "tea", shop.Filled{Amount: c.stock})
			store.Append(shop.Wallets.Schema(), "ann", shop.Filled{Amount: c.wallet})
			details := shop.Details{Customer: "ann", Product: "tea", Pieces: 2, Cents: 50}
			if _, err := instances.Create(t.Context(), "o1", saga.Start[shop.Details]{Data: details}); err != nil {
				t.Fatal(err)
			}
			store.Settle()
			o1, err := instances.Load(t.Context(), "o1")
			if err != nil || o1.State.Phase != c.want || o1.State.Failure.Code != c.code {
				t.Fatalf("%+v, %v; want %s %q", o1.State, err, c.want, c.code)
			}
			if c.want == saga.Completed {
				c.stock, c.wallet = c.stock-2, c.wallet-50
			}
			tea, err := stocks.Load(t.Context(), "tea")
			if err != nil || tea.State.Left != c.stock {
				t.Errorf("%d pieces are left, %v; want %d", tea.State.Left, err, c.stock)
			}
			ann, err := wallets.Load(t.Context(), "ann")
			if err != nil || ann.State.Left != c.wallet {
				t.Errorf("%d cents are left, %v; want %d", ann.State.Left, err, c.wallet)
			}
		})
	}
}

// TestShop is the shop as a whole, in two instances with a carrier that fails at
// first: every order comes to its end, nothing is lost and nothing sold twice.
func TestShop(t *testing.T) {
	t.Parallel()
	url, name := natstest.Run(t).URL(), natstest.Name(t)
	var calls atomic.Int64
	carrier := func(_ context.Context, key string, parcel shop.Packed) (string, error) {
		switch {
		case calls.Add(1)%2 == 1:
			return "", errors.New("try again")
		case parcel.Customer == "nemo":
			return "", shop.ErrUndeliverable
		}
		return key, nil
	}
	s := open(t, url, name, carrier)
	open(t, url, name, carrier)
	// Tea is enough for six orders, ann has money for four.
	wallets := map[string]int64{"ann": 40, "bob": 500, "nemo": 500}
	for customer, cents := range wallets {
		if _, err := s.Wallets.Create(t.Context(), customer, shop.Fill{Amount: cents}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Stocks.Create(t.Context(), "tea", shop.Fill{Amount: 6}); err != nil {
		t.Fatal(err)
	}
	for i := range 6 {
		for customer := range wallets {
			details := shop.Details{Customer: customer, Product: "tea", Pieces: 1, Cents: 10}
			if _, err := s.Checkout.Start(t.Context(), fmt.Sprint(customer, i), details); err != nil {
				t.Fatal(err)
			}
		}
	}
	nc := natstest.Conn(t, url)
	reader, err := projection.NewReader[shop.OrderView](t.Context(), nc, name, "orders",
		projection.ReaderConfig{OpenWait: natstest.Patience, Wait: natstest.Patience})
	if err != nil {
		t.Fatal(err)
	}
	count := func(state string) (n int64, err error) {
		for order, err := range reader.Find(t.Context(), "state", projection.FindOptions{Value: state}) {
			if err != nil {
				return 0, err
			}
			if order.Value.State != state || (state == "cancelled") != (order.Value.Reason != "") {
				t.Errorf("%+v is found as %s", order.Value, state)
			}
			n++
		}
		return n, nil
	}
	var shipped int64
	natstest.Eventually(t, "all orders", func() error {
		cancelled, err := count("cancelled")
		if err == nil {
			shipped, err = count("shipped")
		}
		if err != nil || shipped+cancelled != 18 {
			return errors.Join(fmt.Errorf("%d of 18 have ended", shipped+cancelled), err)
		}
		for instance, err := range s.Checkout.InFlight(t.Context(), saga.Filter{}) {
			return errors.Join(err, fmt.Errorf("%s is at %s", instance.ID, instance.Step))
		}
		return nil
	})
	// What is gone from the stock and from the wallets is what was shipped.
	if shipped == 0 || shipped > 6 {
		t.Errorf("%d of 6 pieces were shipped", shipped)
	}
	tea, err := s.Stocks.Load(t.Context(), "tea")
	if err != nil || tea.State.Left != 6-shipped {
		t.Errorf("%d pieces are left of 6, %v; %d were shipped", tea.State.Left, err, shipped)
	}
	left := int64(0)
	for customer := range maps.Keys(wallets) {
		wallet, err := s.Wallets.Load(t.Context(), customer)
		if err != nil || (customer == "nemo" && wallet.State.Left != 500) {
			t.Errorf("%s has %d, %v", customer, wallet.State.Left, err)
		}
		left += wallet.State.Left
	}
	if left != 1040-10*shipped {
		t.Errorf("%d cents are left of 1040; %d orders for 10 were shipped", left, shipped)
	}
	for order, err := range reader.Find(t.Context(), "customer", projection.FindOptions{Value: "nemo"}) {
		if err != nil || order.Value.State != "cancelled" || !strings.HasPrefix(order.Key, "nemo") {
			t.Errorf("%s: %+v, %v", order.Key, order.Value, err)
		}
	}
}

// open runs a shop until the test ends.
func open(t *testing.T, url, name string, carrier shop.Carrier) *shop.Shop {
	t.Helper()
	store, err := jetstream.Open(t.Context(), natstest.Conn(t, url), jetstream.Config{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	s, err := shop.New(t.Context(), store, carrier)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return s
}
