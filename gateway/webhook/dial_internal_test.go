package webhook

import (
	"errors"
	"net/netip"
	"testing"
)

func TestCheck(t *testing.T) {
	t.Parallel()
	for text, allowed := range map[string]bool{
		"1.1.1.1": true, "93.184.216.34": true, "2606:4700::1111": true, "172.32.0.1": true, "64:ff9b::1.1.1.1": true,
		"2002:101:101::1": true,
		"127.0.0.1":       false, "127.255.255.255": false, "::1": false, "0.0.0.0": false, "::": false, "0.1.2.3": false,
		"10.0.0.1": false, "172.16.0.1": false, "172.31.255.255": false, "192.168.1.1": false, "fd00::1": false, "fc00::1": false,
		"169.254.169.254": false, "fe80::1": false, "fe80::1%eth0": false, "224.0.0.1": false, "ff02::1": false,
		"100.64.0.1": false, "100.127.255.255": false, "192.0.0.1": false, "192.0.2.1": false, "198.18.0.1": false,
		"198.19.255.255": false, "198.51.100.7": false, "203.0.113.9": false, "240.0.0.1": false, "255.255.255.255": false,
		"::ffff:127.0.0.1": false, "::ffff:10.0.0.1": false, "64:ff9b::127.0.0.1": false, "64:ff9b::169.254.169.254": false,
		"64:ff9b:1::10.0.0.1": false, "64:ff9b:1:7f00:0:100:808:808": false, "::ffff:0:127.0.0.1": false, "::127.0.0.1": false, "2002:7f00:1::1": false, "2002:a00:1::1": false,
		"2001:db8::1": false, "100::1": false, "fec0::1": false, "2001::1": false, "3fff::1": false,
	} {
		err := check(netip.MustParseAddr(text), nil)
		if (err == nil) != allowed || (err != nil && !errors.Is(err, ErrAddress)) {
			t.Errorf("%s: %v, allowed is %v", text, err, allowed)
		}
	}
	allow := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	for text, allowed := range map[string]bool{
		"127.0.0.1": true, "::ffff:127.0.0.1": true, "fd12::1": true, "10.0.0.1": false, "1.1.1.1": true, "::1": false,
	} {
		if err := check(netip.MustParseAddr(text), allow); (err == nil) != allowed {
			t.Errorf("%s with AllowNetworks: %v, allowed is %v", text, err, allowed)
		}
	}
}
