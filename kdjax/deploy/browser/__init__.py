"""An exported student on a page: `try.html` runs student.onnx in the browser, with onnxruntime-web."""
