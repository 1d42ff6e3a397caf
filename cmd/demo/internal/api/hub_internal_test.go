package api

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rossby-go/rossby/cmd/demo/internal/views"
	"github.com/rossby-go/rossby/jetstream"
)

func TestHubBoundsWhatAClientHolds(t *testing.T) {
	t.Parallel()
	h := newHub()
	h.open()
	h.transfersKnown(true)
	c := h.join(0)
	const events = eventsMax + 50
	for i := range uint64(events) {
		h.event(liveEvent{sequence: i + 1, data: encode(i)})
	}
	for i := range rowsMax + 50 {
		h.transfer(views.Transfer{TransferID: strconv.Itoa(i), CreatedAt: time.Unix(int64(i), 0)})
	}
	for i := range int64(10) {
		h.account(Account{AccountID: "a", BalanceCents: i})
	}
	n := map[string]int{}
	frames := h.take(c)
	for _, f := range frames {
		n[f.Name]++
		if f.Name == sendAccount && string(f.Data) != string(encode(Account{AccountID: "a", BalanceCents: 9})) {
			t.Errorf("not the last state: %s", f.Data)
		}
		if f.Name == sendGap && string(f.Data) != `{"skipped":50}` {
			t.Errorf("gap %s", f.Data)
		}
	}
	if frames[0].Name != sendGap || n[sendEvent] != eventsMax || n[sendAccount] != 1 || n[sendTransfer] != rowsMax-1 {
		t.Error(n)
	}
	if again := h.take(c); len(again) != 0 {
		t.Errorf("taken twice: %v", again)
	}
	list, known := h.newestTransfers(3)
	if !known || len(list) != 3 || list[0].TransferID != strconv.Itoa(rowsMax+49) || len(h.newest) != transfersMost {
		t.Error(list, known, len(h.newest))
	}
	h.gap(7)
	if got := h.take(c); len(got) != 1 || string(got[0].Data) != `{"skipped":7}` {
		t.Error(got)
	}
	h.close()
	h.leave(c)
	if h.join(0) != nil {
		t.Error("a closed hub takes clients")
	}
}

func TestCompareBooks(t *testing.T) {
	t.Parallel()
	at, later := jetstream.Position{}, jetstream.Position{}
	if err := at.UnmarshalText([]byte(position("5"))); err != nil {
		t.Fatal(err)
	}
	if err := later.UnmarshalText([]byte(position("6"))); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		ledger         views.Ledger
		sum            int64
		sumAt          jetstream.Position
		holds, settled bool
	}{
		"Settled":      {views.Ledger{DepositedCents: 9, BalancesCents: 9}, 9, at, true, true},
		"UnderWay":     {views.Ledger{DepositedCents: 9, BalancesCents: 7, UnderWayCents: 2, UnderWay: map[string]int64{"t": 2}}, 7, at, true, false},
		"Elsewhere":    {views.Ledger{DepositedCents: 9, BalancesCents: 9}, 7, later, true, false},
		"Unequal":      {views.Ledger{DepositedCents: 9, BalancesCents: 8}, 8, at, false, true},
		"OtherSum":     {views.Ledger{DepositedCents: 9, BalancesCents: 9}, 8, at, false, true},
		"CreditedOnly": {views.Ledger{DepositedCents: 9, BalancesCents: 11, UnderWayCents: -2, UnderWay: map[string]int64{"t": -2}}, 11, at, false, false},
	} {
		if b := compare(test.ledger, at, test.sum, test.sumAt); b.Holds != test.holds || b.Settled != test.settled {
			t.Errorf("%s: %+v", name, b)
		}
	}
}

// position is the text of a position of some store.
func position(sequence string) string { return strings.Repeat("A", 22) + "-" + sequence }
