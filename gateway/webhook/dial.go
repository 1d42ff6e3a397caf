package webhook

import (
	"context"
	"net"
	"net/netip"
	"syscall"
	"time"
)

const dialTimeout = 10 * time.Second

// guarded dials allowed addresses only. It looks at the address that is about to
// be connected to, so what a name resolves to at that moment is what counts.
func guarded(allow []netip.Prefix) func(ctx context.Context, network, address string) (net.Conn, error) {
	d := &net.Dialer{
		Timeout: dialTimeout,
		Control: func(_, address string, _ syscall.RawConn) error {
			at, err := netip.ParseAddrPort(address)
			if err != nil {
				return err
			}
			return check(at.Addr(), allow)
		},
	}
	return d.DialContext
}

// check returns an [*AddressError] for an address that is not of the public
// internet, unless it is allowed.
func check(addr netip.Addr, allow []netip.Prefix) error {
	addr = addr.WithZone("")
	for _, p := range allow {
		if p.Contains(addr) || p.Contains(addr.Unmap()) {
			return nil
		}
	}
	if kind := kindOf(addr); kind != "" {
		return &AddressError{Address: addr, Kind: kind}
	}
	return nil
}

// kindOf says what keeps an address from being of the public internet, "" for one
// that is.
func kindOf(addr netip.Addr) string {
	if v4, ok := embedded(addr); ok {
		if kind := kindOf(v4); kind != "" {
			return kind + ", written as IPv6"
		}
	}
	addr = addr.Unmap()
	switch {
	case !addr.IsValid(), addr.IsUnspecified():
		return "unspecified"
	case addr.IsLoopback():
		return "loopback"
	case addr.IsPrivate():
		return "private"
	case addr.IsLinkLocalUnicast():
		return "link-local" // where clouds keep their instances' credentials
	case addr.IsMulticast():
		return "multicast"
	}
	for _, special := range special() {
		if special.net.Contains(addr) {
			return special.kind
		}
	}
	return ""
}

// embedded is the IPv4 address that a translator would make of an IPv6 one.
func embedded(addr netip.Addr) (netip.Addr, bool) {
	if !addr.Is6() || addr.Is4In6() {
		return netip.Addr{}, false
	}
	b := addr.As16()
	switch {
	case netip.MustParsePrefix("64:ff9b::/96").Contains(addr), // NAT64, RFC 6052
		netip.MustParsePrefix("::/96").Contains(addr),           // IPv4-compatible, deprecated
		netip.MustParsePrefix("::ffff:0:0:0/96").Contains(addr): // IPv4-translated, RFC 2765
		return netip.AddrFrom4([4]byte(b[12:16])), true
	case netip.MustParsePrefix("2002::/16").Contains(addr): // 6to4, RFC 3056
		return netip.AddrFrom4([4]byte(b[2:6])), true
	}
	return netip.Addr{}, false
}

type specialNet struct {
	net  netip.Prefix
	kind string
}

// special are the rest of IANA's special-purpose addresses that a packet may not
// leave for.
func special() []specialNet {
	return []specialNet{
		{netip.MustParsePrefix("0.0.0.0/8"), "of this network"},
		{netip.MustParsePrefix("100.64.0.0/10"), "shared by a provider's customers"},
		{netip.MustParsePrefix("192.0.0.0/24"), "reserved for protocols"},
		{netip.MustParsePrefix("192.0.2.0/24"), "for documentation"},
		{netip.MustParsePrefix("192.88.99.0/24"), "of a 6to4 relay"},
		{netip.MustParsePrefix("198.18.0.0/15"), "for benchmarks"},
		{netip.MustParsePrefix("198.51.100.0/24"), "for documentation"},
		{netip.MustParsePrefix("203.0.113.0/24"), "for documentation"},
		{netip.MustParsePrefix("240.0.0.0/4"), "reserved"},
		// A translator may find the IPv4 address at any of six places of these.
		{netip.MustParsePrefix("64:ff9b:1::/48"), "of a local translator"},
		{netip.MustParsePrefix("100::/64"), "discarded"},
		{netip.MustParsePrefix("2001::/23"), "reserved for protocols"},
		{netip.MustParsePrefix("2001:db8::/32"), "for documentation"},
		{netip.MustParsePrefix("3fff::/20"), "for documentation"},
		{netip.MustParsePrefix("5f00::/16"), "of segment routing"},
		{netip.MustParsePrefix("fec0::/10"), "site-local"},
	}
}
