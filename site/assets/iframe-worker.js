// A page opened as a file may not start a worker. There, an invisible frame of the same page runs the worker's script instead.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.queue = [];
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      this.frame.title = "search";
      const start = () => {
        document.body.append(this.frame);
        const inside = this.frame.contentWindow;
        // the script speaks to "self"; what it posts comes to us
        inside.postMessage = (data) => this.deliver(data);
        inside.importScripts = () => {};
        const script = inside.document.createElement("script");
        script.src = new URL(url, location.href).href;
        script.onload = () => {
          this.ready = inside;
          for (const data of this.queue.splice(0)) this.hand(data);
        };
        script.onerror = (event) => this.dispatchEvent(new ErrorEvent("error", { message: String(event) }));
        inside.document.body.append(script);
      };
      if (document.body) start();
      else document.addEventListener("DOMContentLoaded", start);
    }

    // to the page
    deliver(data) {
      setTimeout(() => {
        const event = new MessageEvent("message", { data });
        this.dispatchEvent(event);
        this.onmessage?.(event);
      });
    }

    // to the script
    hand(data) {
      this.ready.dispatchEvent(new this.ready.MessageEvent("message", { data }));
    }

    postMessage(data) {
      if (this.ready) setTimeout(() => this.hand(data));
      else this.queue.push(data);
    }

    terminate() {
      this.frame.remove();
      this.ready = undefined;
    }
  };
}
