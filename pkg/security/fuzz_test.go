package security

import "testing"

// FuzzSealOpen: nothing but what the key has sealed can be opened.
func FuzzSealOpen(f *testing.F) {
	key := SealKey{1, 2, 3}
	sealed, err := key.Seal([]byte("secret"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sealed)
	f.Add([]byte{sealVersion})
	f.Fuzz(func(t *testing.T, data []byte) {
		if plain, err := key.Open(data); err == nil && string(plain) != "secret" { // sealed anew by each process of the fuzzer
			t.Fatalf("%x opens as %q", data, plain)
		}
	})
}

// FuzzLoadCA: a CA that loads has the certificate's own key, and signs.
func FuzzLoadCA(f *testing.F) {
	ca, err := NewCA("site-1")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(ca.CertPEM(), ca.KeyPEM())
	f.Add(ca.KeyPEM(), ca.CertPEM())
	f.Fuzz(func(t *testing.T, cert, key []byte) {
		got, err := LoadCA(cert, key)
		if err == nil && (got.Site() == "" || !got.key.PublicKey.Equal(got.cert.PublicKey)) {
			t.Fatal("it loads, and is no CA of a site")
		}
	})
}
