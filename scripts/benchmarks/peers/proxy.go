// Go's own reverse proxy: proxy PORT UPSTREAM [CONNECTIONS], the idle connections that it keeps (2 by default).
package main

import (
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"strconv"
)

func main() {
	upstream, err := url.Parse(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(upstream)
	if len(os.Args) > 3 {
		connections, _ := strconv.Atoi(os.Args[3])
		proxy.Transport = &http.Transport{MaxIdleConnsPerHost: connections}
	}
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Args[1], proxy))
}
